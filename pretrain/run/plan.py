"""What a recipe would do here, before anything is spent: sizes, rates, times, and what is wrong with it. Writes nothing."""

import math
import resource
import time
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from encoders.runtime import optim
from encoders.runtime.errors import InputError
from encoders.runtime.stop import StopRequest
from pretrain.display.dashboard import format_duration
from pretrain.loop.setup import Setup, build_setup, describe_adjustments, has_bf16
from pretrain.loop.train import TrainState, fit
from pretrain.recipe.config import Recipe

TIMED_STEPS = 4  # steps; the first one, which allocates and compiles, is not counted
CPU_TIMING_BATCH = 64  # images a step when timing on a CPU: enough to fill it, and a plan should take seconds


def plan_run(recipe: Recipe, device: str) -> tuple[list[tuple[str, str]], list[str]]:
    """(what, value) rows and notes. Raises InputError for what `pretrain run` would refuse, and when a step does not fit into memory."""
    made = build_setup(recipe, device)
    rows = describe_sizes(made)
    said = describe_adjustments(made) + list_warnings(made)
    rows += describe_cost(made, device)
    made.batches.close()
    return rows, said


def describe_sizes(made: Setup) -> list[tuple[str, str]]:
    """What follows from the settings and the number of images alone."""
    cfg, images, epoch = made.recipe, len(made.corpus.index), made.batches.steps_per_epoch
    weights = sum(p.numel() for p in made.method.encoder().parameters())
    trained = sum(p.numel() for group in made.optimizer.param_groups for p in group["params"])
    lr = cfg.optim
    rows = [
        ("images", f"{images:,} of {len(made.corpus.store):,} in the store"),
        ("network", f"{cfg.arch}, {cfg.channels} x {cfg.size} x {cfg.size} px"),
        ("weights", f"{weights / 1e6:.1f} M in the encoder, {trained / 1e6:.1f} M trained"),
        ("starts from", cfg.init or f"random weights, seed {cfg.seed}"),
        ("input", f"mean {list(cfg.preprocess.mean or ())}, std {list(cfg.preprocess.std or ())}"),
        ("precision", cfg.precision),
        ("batch", f"{cfg.batch} images a step, as {cfg.accumulate} x {cfg.batch // cfg.accumulate}"),
        ("learning rate", f"{optim.peak_lr(lr, cfg.batch):.3g} at its peak ({lr.lr:g}, {lr.lr_rule} rule, at {cfg.batch} images)"),
        ("length", f"{made.steps:,} steps = {made.steps / epoch:.1f} epochs of {epoch:,} steps"),
        ("warm-up", f"{made.warmup:,} steps ({100 * made.warmup / made.steps:.0f} % of the run)"),
    ]
    queue, momentum = getattr(made.method, "queue", None), getattr(made.method, "momentum", None)
    if isinstance(queue, torch.Tensor):
        rows.append(("queue", f"{len(queue):,} keys = {100 * len(queue) / images:.0f} % of the images"))
    if isinstance(momentum, float) and 0 < momentum < 1:
        half = half_life(momentum)
        rows.append(("EMA half-life", f"{half:.0f} steps = {half / epoch:.2f} epochs (momentum {momentum:.6g})"))
    return rows


def half_life(momentum: float) -> float:
    """Steps after which half of an EMA's weight is on what came since."""
    return math.log(0.5) / math.log(momentum)


def list_warnings(made: Setup) -> list[str]:
    """What is allowed and probably not meant."""
    cfg, epoch, said = made.recipe, made.batches.steps_per_epoch, []
    if made.steps < 10 * epoch and made.steps < 1000:
        said.append(f"{made.steps} steps ({made.steps / epoch:.1f} epochs) show that it runs; features worth using need thousands of steps")
    momentum = getattr(made.method, "momentum", None)
    if isinstance(momentum, float) and 0 < momentum < 1 and half_life(momentum) > made.steps / 4:
        said.append(f"the EMA forgets its start slowly (half-life {half_life(momentum):.0f} of {made.steps} steps): lower method.momentum")
    if made.warmup > made.steps // 3:
        said.append(f"the warm-up takes {made.warmup} of {made.steps} steps")
    dropped = len(made.corpus.index) - epoch * cfg.batch
    if dropped > len(made.corpus.index) // 10:
        said.append(f"{dropped} of {len(made.corpus.index)} images do not fill a batch and are left out of each epoch (others each time)")
    if cfg.precision == "bf16" and not has_bf16(made.device):
        said.append(f"this {made.device.type} only emulates bf16, which is many times slower: leave precision=auto, or precision=fp32")
    if cfg.checkpointing and any(isinstance(layer, BatchNorm) for layer in made.method.modules()):
        said.append("checkpointing=true with BatchNorm: its running averages move twice a step, as the forward pass is run again")
    if made.device.type == "cpu" and made.steps * cfg.batch > 5_000_000:
        said.append("this is a run for GPUs: `pretrain submit`, or start from a *_tiny recipe here")
    return said


def measure_speed(made: Setup, device: str) -> tuple[float, float, int]:
    """Seconds an image, the share of the time spent waiting for data, and at how many images a step both were timed."""
    cfg = made.recipe
    small = cfg.batch // cfg.accumulate
    if made.device.type == "cpu":
        small = min(small, CPU_TIMING_BATCH)
    trial = made if small == cfg.batch else build_setup(cfg.model_copy(update={"batch": small, "accumulate": 1}), device)
    return *time_steps(trial), small


def describe_cost(made: Setup, device: str) -> list[tuple[str, str]]:
    """Memory and time, from a few steps really taken on real images (and thrown away)."""
    cfg = made.recipe
    per_image, waited, small = measure_speed(made, device)
    seconds = per_image * cfg.batch
    how = "" if small == cfg.batch else f"; timed at {small} images a step"
    if made.device.type == "cuda":
        memory = f"{torch.cuda.max_memory_allocated(made.device) / 2**30:.1f} GiB of the GPU"
    else:
        memory = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB at most"  # Linux counts in KiB
    return [
        ("speed", f"{1 / per_image:.0f} images/s, {seconds:.2f} s a step, {100 * waited:.0f} % of it waiting for data{how}"),
        ("memory", memory),
        ("time", f"{format_duration(seconds * made.steps)} for {made.steps:,} steps on this {made.device.type}"),
    ]


def time_steps(made: Setup) -> tuple[float, float]:
    """Seconds an image, and the share of the time spent waiting for data."""
    marks: list[tuple[float, float]] = []
    stop, quick = StopRequest(), made.recipe.model_copy(update={"log_every": 1})

    def log(step: int, **numbers: Any) -> None:
        if made.device.type == "cuda":
            torch.cuda.synchronize(made.device)
        marks.append((time.perf_counter(), made.batches.waited))
        stop.requested = "enough" if step >= TIMED_STEPS else None

    try:
        fit(made.method, made.batches, made.optimizer, made.scaler, quick, max(made.steps, TIMED_STEPS + 1), made.warmup, TrainState(), log,
            lambda state: None, stop, made.device)  # fmt: skip
    except torch.OutOfMemoryError:
        raise InputError(
            f"a micro-batch of {made.recipe.batch} images does not fit into the GPU's memory; raise accumulate (now a step is "
            f"{made.recipe.accumulate} micro-batches)"
        ) from None
    finally:
        made.batches.close()
    elapsed, waited = marks[-1][0] - marks[0][0], marks[-1][1] - marks[0][1]
    return elapsed / ((len(marks) - 1) * made.recipe.batch), min(waited / elapsed, 1.0)
