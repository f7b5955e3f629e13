"""The training loop. It knows no method by name, and counts everything in optimizer steps.

Shapes: B images of a micro-batch on this rank, C channels, H height, W width.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol, SupportsFloat

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from encoders.loading.batches import MicroBatch
from encoders.runtime import dist
from encoders.runtime.json_types import Json
from encoders.runtime.optim import clip_gradients, set_lr
from encoders.runtime.random import Purpose
from encoders.runtime.stop import StopRequest
from pretrain.loop.batch_source import BatchSource
from pretrain.loop.continuation import Continuation
from pretrain.loop.step_check import StepReading, read_scalars, read_step
from pretrain.loop.timing import StepTimer
from pretrain.loop.unused_parameters import freeze_unused_parameters, list_without_gradient
from pretrain.methods import Method
from pretrain.recipe.config import Recipe

HALF_PRECISION = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Diverged(RuntimeError):
    """The loss or its gradient was NaN or inf for too many consecutive steps."""


@dataclass
class TrainState:
    """Progress of a run."""

    step: int = 0  # optimizer steps done, skipped ones included
    skipped: int = 0  # consecutive steps up to this one whose loss or gradient was NaN or inf
    skipped_total: int = 0
    lr_factor: float = 1.0  # of the schedule: below 1 after a rollback
    rollbacks: list[dict[str, Json]] = field(default_factory=list)  # steps, factor and reason of each


class LogMetrics(Protocol):
    """Records the numbers of a step."""

    def __call__(self, step: int, **numbers: SupportsFloat) -> None: ...


def fit(
    method: Method,
    batches: BatchSource,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    cfg: Recipe,
    steps: int,
    warmup: int,
    state: TrainState,
    log: LogMetrics,
    save: Callable[[TrainState], None],
    stop: StopRequest,
    device: torch.device,
    parts: Continuation | None = None,
) -> None:
    """Trains from `state.step` to `steps`, or to the step at which `stop` is requested, and then saves a checkpoint.

    A resumed run gives the same weights as one that was never stopped.

    Raises Diverged after `cfg.max_skipped` consecutive steps whose loss or gradient was NaN or inf."""
    parts = parts or Continuation()
    model = parts.outermost(method).train()
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    if dist.world_size() > 1 and state.step < steps:
        model = start_ddp(model, method, batches, cfg, state.step, device)
    timer = StepTimer(batches, cfg.batch, state.step, device)
    for step in range(state.step, steps):
        progress = step / steps
        lr = set_lr(optimizer, step, steps, warmup, cfg.optim, state.lr_factor)
        if parts.head_warmup:
            parts.head_warmup.begin_step(optimizer, step)
        scalars: dict[str, Tensor] = {}
        for i, micro in enumerate(batches.micro_batches(step)):
            seed_model(cfg.seed, step, i, dist.rank())
            with sync_gradients(model, last=i == cfg.accumulate - 1):
                with autocast(cfg.precision, device):
                    views = set_memory_format(micro.views, cfg.channels_last)
                    outputs = model(views, micro.masks, progress=progress, **micro.image_values())
                timer.lap("forward")
                scaler.scale(outputs["loss"] / cfg.accumulate).backward()
                timer.lap("backward")
            scalars = add_scalars(scalars, outputs, 1 / cfg.accumulate)
        method.after_backward(progress)
        if parts.head_warmup:
            parts.head_warmup.hold_backbone(step)
        scaler.unscale_(optimizer)
        grad_norm = clip_gradients(trained, cfg.clip)
        try:
            reading = read_step(scalars["loss"], grad_norm, stop.requested is not None, device)  # the one wait for the device of a step
            if accept_step(reading, state, cfg.max_skipped, scaler):
                optimizer.step()  # not `scaler.step`, which reads once more whether the gradient is finite
                method.after_step(progress)
                if parts.average:
                    parts.average.update(step)
        finally:  # after a rollback training continues with these objects: nothing of a bad step may reach the next one
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
        timer.lap("optimizer")
        state.step = step + 1
        logged = state.step % cfg.log_every == 0 or state.step == steps
        if logged:
            numbers = read_scalars(parts.summarise(scalars)) | {"grad_norm": reading.grad_norm}
            log(state.step, **numbers, lr=lr, skipped=state.skipped_total, **timer.read(state.step))
        stopping = reading.stop  # all ranks must agree on the last step
        if logged or dist.world_size() == 1:  # the log may ask to stop; a single process may be asked at any time, and waits for nobody
            stopping = dist.any_rank(stop.requested is not None, device)
        if state.step % cfg.save_every == 0 or state.step == steps or stopping:
            save(state)
        timer.lap("logging")
        if stopping:
            break
    dist.barrier()  # no rank leaves before the main rank has saved


def start_ddp(model: nn.Module, method: Method, batches: BatchSource, cfg: Recipe, step: int, device: torch.device) -> nn.Module:
    """`model` wrapped in DDP and ready for its first step; besides parameters that are not used, which are frozen, nothing is changed.

    DDP waits for a gradient of every trainable parameter: two passes of different images find those that get none. It rearranges its
    buckets after the first backward pass, and with them the order of its sums. A resumed run must start after that too, or its last bits
    differ from those of a run that was never stopped: two more passes, which are discarded as well."""
    buffers = {name: buffer.clone() for name, buffer in method.named_buffers()}
    micros = [next(batches.micro_batches(step + i)) for i in range(2)]
    for micro in micros:
        discarded_pass(model, micro, cfg, device)
    freeze_unused_parameters(model, list_without_gradient(model), device)
    model.zero_grad(set_to_none=True)
    model = dist.wrap_ddp(model, device)
    for _ in range(2):
        discarded_pass(model, micros[0], cfg, device)
        model.zero_grad(set_to_none=True)
    method.after_backward(0.0)  # closes the step buffers: their rows are discarded with the first micro-batch of the next step
    for name, buffer in method.named_buffers():
        buffer.copy_(buffers[name])
    return model


def discarded_pass(model: nn.Module, micro: MicroBatch, cfg: Recipe, device: torch.device) -> None:
    """A forward and backward pass outside the steps."""
    with autocast(cfg.precision, device):
        views = set_memory_format(micro.views, cfg.channels_last)
        outputs = model(views, micro.masks, progress=0.0, **micro.image_values())
    outputs["loss"].backward()


def seed_model(seed: int, step: int, micro: int, rank: int) -> None:
    """Seeds the random numbers that the model draws (drop path, dropout): they depend on these four numbers only."""
    torch.manual_seed(int(np.random.SeedSequence([seed, Purpose.MODEL, step, micro, rank]).generate_state(1, np.uint64)[0] >> 1))


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Half precision where it is safe; nothing in float32."""
    return torch.autocast(device.type, dtype=HALF_PRECISION[precision]) if precision in HALF_PRECISION else nullcontext()


def sync_gradients(model: nn.Module, last: bool) -> AbstractContextManager[object]:
    """Under DDP, ranks exchange gradients with the last micro-batch only."""
    return nullcontext() if last or not isinstance(model, DistributedDataParallel) else model.no_sync()


def set_memory_format(views: list[Tensor], channels_last: bool) -> list[Tensor]:
    """The views (B, C, H, W) in the memory order of the backbone's kernels."""
    return [v.contiguous(memory_format=torch.channels_last) for v in views] if channels_last else views


def add_scalars(total: Mapping[str, Tensor], scalars: Mapping[str, Tensor], weight: float) -> dict[str, Tensor]:
    """`total` plus `weight` times the scalars of a micro-batch, on the device."""
    return {k: total.get(k, 0.0) + torch.as_tensor(v).detach().float() * weight for k, v in scalars.items()}


def accept_step(reading: StepReading, state: TrainState, limit: int, scaler: torch.amp.GradScaler | None = None) -> bool:
    """Whether to take the step: loss and gradient are finite on all ranks. Counts rejections in `state`.

    A finite loss whose scaled gradient overflows in float16 is rejected and not counted: `scaler` searches its scale, and halves it next.
    From a scale of 1 on the gradient itself is inf.

    Raises Diverged after `limit` consecutive rejections that count."""
    if reading.is_finite:
        state.skipped = 0
        return True
    if scaler and scaler.get_scale() > 1 and reading.loss_is_finite:
        return False
    state.skipped, state.skipped_total = state.skipped + 1, state.skipped_total + 1
    if state.skipped >= limit:
        raise Diverged(
            f"the loss ({reading.loss:g}) or its gradient ({reading.grad_norm:g}) was NaN or inf for {limit} consecutive steps, up to step "
            f"{state.step + 1}; lower optim.lr, set clip (e.g. clip=1.0), or use precision=fp32, and start again under another --name"
        )
    return False
