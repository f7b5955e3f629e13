"""The training loop. It knows no method's name, and everything is counted in optimizer steps.

Shapes: B images of a micro-batch on this rank, C channels, H height, W width.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from encoders.runtime import dist
from encoders.runtime.optim import clip_gradients, set_lr
from encoders.runtime.random import Purpose
from encoders.runtime.stop import StopRequest
from pretrain.loop.timing import StepTimer
from pretrain.recipe.config import Recipe

HALF_PRECISION = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Diverged(RuntimeError):
    """The loss or its gradient was no number for too many steps in a row."""


@dataclass
class TrainState:
    """Where a run stands."""

    step: int = 0  # optimizer steps behind us, skipped ones included
    skipped: int = 0  # of the last steps, in a row: loss or gradient was no number
    skipped_total: int = 0
    lr_factor: float = 1.0  # of the schedule: below 1 after a rollback
    rollbacks: list[dict[str, Any]] = field(default_factory=list)  # each one's steps, factor and reason


class LogMetrics(Protocol):
    def __call__(self, step: int, **numbers: Any) -> None: ...


def fit(
    method: Any,
    batches: Any,
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
) -> None:
    """Trains from `state.step` to `steps`, or to the step at which `stop` was requested; always ends with a saved checkpoint.

    A resumed run equals the run that was never stopped. Raises Diverged after `cfg.max_skipped` bad steps in a row."""
    model = dist.wrap_ddp(method.train(), device)
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    if dist.world_size() > 1 and state.step < steps:
        settle_ddp_buckets(model, method, batches, cfg, state.step, device)
    meter = StepTimer(batches, cfg.batch, state.step, device)
    for step in range(state.step, steps):
        done = step / steps
        lr = set_lr(optimizer, step, steps, warmup, cfg.optim, state.lr_factor)
        out: dict[str, Tensor] = {}
        for i, micro in enumerate(batches.of(step)):
            seed_model(cfg.seed, step, i, dist.rank())
            with sync_gradients(model, last=i == cfg.accumulate - 1):
                with autocast(cfg.precision, device):
                    got = model(set_memory_format(micro.views, cfg.channels_last), micro.masks, progress=done, **micro.named())
                meter.lap("forward")
                scaler.scale(got["loss"] / cfg.accumulate).backward()
                meter.lap("backward")
            out = add_scalars(out, got, 1 / cfg.accumulate)
        method.after_backward(done)
        scaler.unscale_(optimizer)
        grad_norm = clip_gradients(trained, cfg.clip)
        try:
            if accept_step(grad_norm, out["loss"], state, cfg.max_skipped, device):  # waits for the device: the one sync of a step
                scaler.step(optimizer)
                method.after_step(done)
        finally:  # a run that is rolled back goes on with these objects: nothing of a bad step may reach the next
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
        meter.lap("optimizer")
        state.step = step + 1
        if state.step % cfg.log_every == 0 or state.step == steps:
            log(state.step, **out, lr=lr, grad_norm=grad_norm, skipped=state.skipped_total, **meter.read(state.step))
        stopping = dist.any_rank(stop.requested is not None, device)  # the ranks must agree on the last step
        if state.step % cfg.save_every == 0 or state.step == steps or stopping:
            save(state)
        meter.lap("logging")
        if stopping:
            break
    dist.barrier()  # nobody leaves, and is missed, before the main rank has saved


def settle_ddp_buckets(model: nn.Module, method: Any, batches: Any, cfg: Recipe, step: int, device: torch.device) -> None:
    """Two throw-away backward passes, after which all but DDP is as before.

    DDP lays its gradient buckets out anew after the first one, and with them the order of its sums: a run that starts in the middle
    must have done so too, or it differs in the last bit from one that was never stopped."""
    kept = {name: buffer.clone() for name, buffer in method.named_buffers()}
    micro = next(batches.of(step))
    for _ in range(2):
        with autocast(cfg.precision, device):
            out = model(set_memory_format(micro.views, cfg.channels_last), micro.masks, progress=0.0, **micro.named())
        out["loss"].backward()
        method.zero_grad(set_to_none=True)
    method.after_backward(0.0)  # the step is over: what it left for `after_step` is forgotten with the next one's first micro-batch
    for name, buffer in method.named_buffers():
        buffer.copy_(kept[name])


def seed_model(seed: int, step: int, micro: int, rank: int) -> None:
    """Seeds what the model draws itself (drop path, dropout), so that it depends on nothing but these four numbers."""
    torch.manual_seed(int(np.random.SeedSequence([seed, Purpose.MODEL, step, micro, rank]).generate_state(1, np.uint64)[0] >> 1))


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Half precision where it is safe, or nothing in float32."""
    return torch.autocast(device.type, dtype=HALF_PRECISION[precision]) if precision in HALF_PRECISION else nullcontext()


def sync_gradients(model: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Under DDP, gradients are exchanged with the last micro-batch only."""
    return nullcontext() if last or dist.world_size() == 1 else model.no_sync()  # type: ignore[operator,return-value]


def set_memory_format(views: list[Tensor], channels_last: bool) -> list[Tensor]:
    """The views (B, C, H, W) in the memory order that the backbone's kernels want."""
    return [v.contiguous(memory_format=torch.channels_last) for v in views] if channels_last else views


def add_scalars(total: Mapping[str, Tensor], new: Mapping[str, Tensor], weight: float) -> dict[str, Tensor]:
    """Running mean of a step's scalars over its micro-batches, kept on the device."""
    return {k: total.get(k, 0.0) + torch.as_tensor(v).detach().float() * weight for k, v in new.items()}


def accept_step(grad_norm: Tensor, loss: Tensor, state: TrainState, limit: int, device: torch.device) -> bool:
    """Whether the step may be taken: loss and gradient are numbers. Counts refusals; raises Diverged at `limit` in a row."""
    fine = math.isfinite(grad_norm.item()) and math.isfinite(loss.item())
    if not dist.any_rank(not fine, device):
        state.skipped = 0
        return True
    state.skipped, state.skipped_total = state.skipped + 1, state.skipped_total + 1
    if state.skipped >= limit:
        raise Diverged(
            f"the loss ({loss.item():g}) or its gradient ({grad_norm.item():g}) was no number for {limit} steps in a row, up to step "
            f"{state.step + 1}; lower optim.lr, set clip (e.g. clip=1.0), or use precision=fp32, and start again under another --name"
        )
    return False
