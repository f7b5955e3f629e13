"""The plan of a run on this machine: sizes, rates, time and memory, and what is likely a mistake. Writes nothing."""

import math
import resource
import time
from typing import SupportsFloat

import torch

from encoders.runtime import optim
from encoders.runtime.errors import InputError
from encoders.runtime.stop import StopRequest
from encoders.zoo.batchnorm import has_trained_statistics, list_statistics_layers, uses_batch_statistics
from pretrain.display.dashboard import format_duration
from pretrain.loop.batchnorm_mode import describe_batchnorm
from pretrain.loop.setup import Setup, build_setup, describe_adjustments, has_bf16
from pretrain.loop.train import TrainState, fit
from pretrain.methods import Method
from pretrain.recipe.config import Recipe

TIMED_STEPS = 4  # the first one is not counted: it allocates memory and compiles
CPU_TIMING_BATCH = 64  # images per timed step on a CPU: enough to use it fully, and a plan should take seconds


def plan_run(recipe: Recipe, device: str) -> tuple[list[tuple[str, str]], list[str]]:
    """(name, value) rows and notes. Raises InputError for what `pretrain run` would refuse, and if a step does not fit into memory."""
    setup = build_setup(recipe, device)
    rows = describe_sizes(setup)
    notes = describe_adjustments(setup) + list_warnings(setup)
    rows += describe_cost(setup, device)
    setup.batches.close()
    return rows, notes


def describe_sizes(setup: Setup) -> list[tuple[str, str]]:
    """(name, value) rows that follow from the settings and the number of images."""
    cfg, images, epoch = setup.recipe, len(setup.corpus.index), setup.batches.steps_per_epoch
    weights = sum(p.numel() for p in setup.method.encoder().parameters())
    trained = sum(p.numel() for group in setup.optimizer.param_groups for p in group["params"])
    lr = cfg.optim
    rows = [
        ("images", f"{images:,} of {len(setup.corpus.store):,} in the store"),
        ("network", f"{cfg.arch}, {cfg.channels} x {cfg.size} x {cfg.size} px"),
        ("weights", f"{weights / 1e6:.1f} M in the encoder, {trained / 1e6:.1f} M trained"),
        ("starts from", cfg.init or f"random weights, seed {cfg.seed}"),
        ("BatchNorm", describe_batchnorm(cfg, setup.method.encoder()) or f"{cfg.arch} has none"),
        ("input", f"mean {list(cfg.preprocess.mean or ())}, std {list(cfg.preprocess.std or ())}"),
        ("precision", cfg.precision),
        ("batch", f"{cfg.batch} images per step, as {cfg.accumulate} x {cfg.batch // cfg.accumulate}"),
        ("learning rate", f"{optim.peak_lr(lr, cfg.batch):.3g} at its peak ({lr.lr:g}, {lr.lr_rule} rule, at {cfg.batch} images)"),
        ("length", f"{setup.steps:,} steps = {setup.steps / epoch:.1f} epochs of {epoch:,} steps"),
        ("warm-up", f"{setup.warmup:,} steps ({100 * setup.warmup / setup.steps:.0f} % of the run)"),
    ]
    if (queue := setup.method.queue_length) is not None:
        rows.append(("queue", f"{queue:,} keys = {100 * queue / images:.0f} % of the images"))
    if (steps := ema_half_life(setup.method)) is not None:
        momentum = setup.method.constant_momentum
        rows.append(("EMA half-life", f"{steps:.0f} steps = {steps / epoch:.2f} epochs (momentum {momentum:.6g})"))
    return rows


def ema_half_life(method: Method) -> float | None:
    """`half_life` of the method's EMA; None without an EMA of constant momentum, or one that never moves or keeps nothing."""
    momentum = method.constant_momentum
    return half_life(momentum) if momentum is not None and 0 < momentum < 1 else None


def half_life(momentum: float) -> float:
    """Steps after which an EMA has replaced half of its initial value."""
    return math.log(0.5) / math.log(momentum)


def list_warnings(setup: Setup) -> list[str]:
    """Settings that are allowed, but are probably a mistake."""
    cfg, epoch, notes = setup.recipe, setup.batches.steps_per_epoch, []
    if setup.steps < 10 * epoch and setup.steps < 1000:
        notes.append(
            f"{setup.steps} steps ({setup.steps / epoch:.1f} epochs) only test that it runs; useful features need thousands of steps"
        )
    if (steps := ema_half_life(setup.method)) is not None and steps > setup.steps / 4:
        notes.append(f"the EMA replaces its initial weights slowly (half-life {steps:.0f} of {setup.steps} steps): lower method.momentum")
    if setup.warmup > setup.steps // 3:
        notes.append(f"the warm-up takes {setup.warmup} of {setup.steps} steps")
    dropped = len(setup.corpus.index) - epoch * cfg.batch
    if dropped > len(setup.corpus.index) // 10:
        notes.append(
            f"{dropped} of {len(setup.corpus.index)} images do not fill a batch and are left out of each epoch (different ones each time)"
        )
    if cfg.precision == "bf16" and not has_bf16(setup.device):
        notes.append(f"this {setup.device.type} only emulates bf16, which is many times slower: use precision=auto or precision=fp32")
    if cfg.checkpointing and uses_batch_statistics(setup.method.encoder()):
        notes.append("checkpointing=true runs the forward pass twice, so BatchNorm updates its running statistics twice per step")
    if cfg.batchnorm == "frozen" and list_statistics_layers(encoder := setup.method.encoder()) and not has_trained_statistics(encoder):
        notes.append("batchnorm=frozen keeps mean 0 and variance 1, as in a new network, so nothing is normalised: use batchnorm=train")
    if setup.device.type == "cpu" and setup.steps * cfg.batch > 5_000_000:
        notes.append("this run needs a GPU: use `pretrain submit`, or a *_tiny recipe on this machine")
    return notes


def measure_speed(setup: Setup, device: str) -> tuple[float, float, int]:
    """Seconds per image, share of the time spent waiting for data, and number of images per timed step."""
    cfg = setup.recipe
    batch = cfg.batch // cfg.accumulate
    if setup.device.type == "cpu":
        batch = min(batch, CPU_TIMING_BATCH)
    trial = setup if batch == cfg.batch else build_setup(cfg.model_copy(update={"batch": batch, "accumulate": 1}), device)
    return *time_steps(trial), batch


def describe_cost(setup: Setup, device: str) -> list[tuple[str, str]]:
    """(name, value) rows on speed, memory and time, measured by a few training steps on real images, which are discarded."""
    cfg = setup.recipe
    per_image, waited, batch = measure_speed(setup, device)
    seconds = per_image * cfg.batch
    timed_at = "" if batch == cfg.batch else f"; timed at {batch} images per step"
    if setup.device.type == "cuda":
        memory = f"{torch.cuda.max_memory_allocated(setup.device) / 2**30:.1f} GiB of GPU memory"
    else:
        memory = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB at most"  # Linux counts in KiB
    return [
        ("speed", f"{1 / per_image:.0f} images/s, {seconds:.2f} s per step, {100 * waited:.0f} % of it waiting for data{timed_at}"),
        ("memory", memory),
        ("time", f"{format_duration(seconds * setup.steps)} for {setup.steps:,} steps on this {setup.device.type}"),
    ]


def time_steps(setup: Setup) -> tuple[float, float]:
    """Seconds per image, and share of the time spent waiting for data."""
    marks: list[tuple[float, float]] = []
    stop, every_step = StopRequest(), setup.recipe.model_copy(update={"log_every": 1})

    def log(step: int, **metrics: SupportsFloat) -> None:
        if setup.device.type == "cuda":
            torch.cuda.synchronize(setup.device)
        marks.append((time.perf_counter(), setup.batches.waited))
        stop.requested = "timed" if step >= TIMED_STEPS else None

    try:
        fit(setup.method, setup.batches, setup.optimizer, setup.scaler, every_step, max(setup.steps, TIMED_STEPS + 1), setup.warmup,
            TrainState(), log, lambda state: None, stop, setup.device, setup.continuation)  # fmt: skip
    except torch.OutOfMemoryError:
        raise InputError(
            f"a micro-batch of {setup.recipe.batch} images does not fit into GPU memory; raise accumulate (now a step has "
            f"{setup.recipe.accumulate} micro-batches)"
        ) from None
    finally:
        setup.batches.close()
    elapsed, waited = marks[-1][0] - marks[0][0], marks[-1][1] - marks[0][1]
    return elapsed / ((len(marks) - 1) * setup.recipe.batch), min(waited / elapsed, 1.0)
