"""The plan of a run on this machine: sizes, rates, time and memory, and what is likely a mistake. Writes nothing."""

import math
from typing import NamedTuple

import torch

from encoders.loading.worker_count import describe_loading
from encoders.runtime import optim
from encoders.runtime.arithmetic import has_bf16
from encoders.runtime.devices import describe_device
from encoders.zoo.batchnorm import has_trained_statistics, list_statistics_layers, uses_batch_statistics
from pretrain.display.dashboard import format_duration
from pretrain.loop.batchnorm_mode import describe_batchnorm
from pretrain.loop.setup import Setup, build_setup, describe_adjustments
from pretrain.methods import Method
from pretrain.recipe.config import Recipe
from pretrain.run.step_cost import TRIALS, StepCost, measure_step_cost

BUSY = 0.7  # share of its threads' time below which a process does not have the machine to itself; alone it has about 0.95
UNSTEADY = 1.5  # the slowest timed step over the fastest: from here on the estimated time is not reliable


class RunPlan(NamedTuple):
    """(name, value) rows and notes for the user, and the numbers in them."""

    rows: list[tuple[str, str]]
    notes: list[str]
    cost: StepCost
    steps_per_epoch: int


def plan_run(recipe: Recipe, device: str) -> RunPlan:
    """The plan of a run. Raises InputError for what `pretrain run` would refuse, and if a step does not fit into memory."""
    setup = build_setup(recipe, device)
    rows, notes = [("device", describe_device(device)), *describe_sizes(setup)], describe_adjustments(setup) + list_warnings(setup)
    recipe, steps, epoch = setup.recipe, setup.steps, setup.batches.steps_per_epoch
    setup.batches.close()
    del setup  # its network would count as memory of the step
    cost = measure_step_cost(recipe, device)
    return RunPlan(rows + describe_cost(cost, recipe, steps, device), notes + list_cost_warnings(cost), cost, epoch)


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
        ("input", f"{_value_range(cfg)}mean {list(cfg.preprocess.mean or ())}, std {list(cfg.preprocess.std or ())}"),
        ("precision", cfg.precision),
        ("loading", describe_loading(cfg.data.workers, cfg.data.prefetch, setup.device, setup.corpus.store)),
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


def describe_cost(cost: StepCost, recipe: Recipe, steps: int, device: str) -> list[tuple[str, str]]:
    """(name, value) rows on speed, memory and time.  steps: those of the run."""
    fastest, seconds, slowest = min(cost.seconds), cost.median, max(cost.seconds)
    how = f"{'extrapolated from' if cost.extrapolated else 'median of'} {len(cost.seconds)} steps, {fastest:.2f} to {slowest:.2f} s"
    speed = f"{recipe.batch / seconds:.0f} images/s, {seconds:.2f} s per step ({how}), {100 * cost.waited:.0f} % of it waiting for data"
    on_gpu = device.startswith("cuda")
    workers = f", and that of {recipe.data.workers} loader processes" if recipe.data.workers and not on_gpu else ""
    free = "" if cost.available is None else f"; {cost.available:.1f} GiB are free now"
    trials = f" with batches of {TRIALS[0]} and {TRIALS[1]} images, because {cost.extrapolated}" if cost.extrapolated else ""
    return [
        ("speed", speed),
        ("memory", f"{cost.memory:.1f} GiB{' of GPU memory' if on_gpu else ''} at the peak{workers}{free}"),
        (
            "time",
            f"{format_duration(seconds * steps)} for {steps:,} steps on this {torch.device(device).type}, "
            f"{format_duration(fastest * steps)} to {format_duration(slowest * steps)} if all steps were as the fastest or slowest",
        ),
        ("measured", f"in {cost.took:.0f} s{trials}"),
    ]


def list_cost_warnings(cost: StepCost) -> list[str]:
    """What the measured cost says is a mistake."""
    notes = []
    if cost.available is not None and cost.memory > cost.available:
        notes.append(
            f"a step takes about {cost.memory:.1f} GiB and {cost.available:.1f} GiB are available: lower batch, raise accumulate, or set "
            "checkpointing=true"
        )
    if cost.cpu_share is not None and cost.cpu_share < BUSY:
        notes.append(
            f"the timed steps had {100 * cost.cpu_share:.0f} % of the time of their CPU threads, because other work slows this machine or "
            f"images are waited for: otherwise a step may take about {cost.median * cost.cpu_share:.2f} s"
        )
    elif max(cost.seconds) > UNSTEADY * min(cost.seconds):
        notes.append("the timed steps differ by more than half, so the time is not reliable: plan again when the machine is idle")
    return notes


def _value_range(cfg: Recipe) -> str:
    return f"black {cfg.preprocess.value_range[0]:g}, white {cfg.preprocess.value_range[1]:g}, " if cfg.preprocess.value_range else ""
