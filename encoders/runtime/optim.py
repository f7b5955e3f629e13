"""Optimizers and schedules. Every scheduled quantity is a pure function of the step, so that a checkpoint needs no scheduler state."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from encoders.runtime.lars import LARS
from encoders.runtime.lr_rule import scale_lr
from encoders.runtime.optim_config import Optim

LAST_STEP_AT = 7 / 8  # of the run, where the schedule `step` drops: epoch 700 of 800 of SimMIM (Xie et al. 2022, arXiv:2111.09886)


def peak_lr(cfg: Optim, batch: int) -> float:
    """The peak learning rate for a global batch of `batch` images."""
    return scale_lr(cfg.lr, cfg.lr_rule, batch)


def cosine_schedule(step: int, steps: int, start: float, end: float) -> float:
    """`start` at step 0, `end` at `steps`, half a cosine between."""
    done = min(max(step / steps, 0.0), 1.0) if steps > 0 else 1.0
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * done))


def lr_factor(step: int, steps: int, warmup: int, end: float = 0.0, schedule: str = "cosine") -> float:
    """The learning rate at `step` (counted from 0) as a fraction of the peak: linear over `warmup` steps, then the schedule.

    The first step is at 1/warmup, not 0: a step at learning rate 0 would only change the BatchNorm statistics."""
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "step":
        return end if step >= steps * LAST_STEP_AT else 1.0
    return 1.0 if schedule == "constant" else cosine_schedule(step - warmup, steps - warmup, 1.0, end)


def build_optimizer(groups: Iterable[Mapping[str, Any]], cfg: Optim, batch: int) -> torch.optim.Optimizer:
    """The optimizer of `groups`: dicts of `params` and optionally `weight_decay`, `lr_scale`, `fixed_lr` (no schedule), `name`.

    It contains only parameters that require gradients. Raises ValueError when there is none."""
    base = peak_lr(cfg, batch)
    complete: list[dict[str, Any]] = []
    filled: dict[str, Any]
    for i, group in enumerate(groups):
        params = [p for p in group["params"] if p.requires_grad]
        filled = {"weight_decay": cfg.weight_decay, "lr_scale": 1.0, "fixed_lr": False, "name": f"group{i}", **group, "params": params}
        filled["peak"] = base * filled["lr_scale"]  # in the group: `set_lr` needs nothing else
        filled["lr"] = filled["peak"]
        if params:
            complete.append(filled)
    if not complete:
        raise ValueError("no parameter to train: every group is empty or frozen")
    fused = complete[0]["params"][0].is_cuda if cfg.fused is None else cfg.fused
    if cfg.kind == "adamw":
        return torch.optim.AdamW(complete, lr=base, betas=cfg.betas, eps=cfg.eps, fused=fused or None)  # None: torch chooses
    if cfg.kind == "sgd":
        return torch.optim.SGD(complete, lr=base, momentum=cfg.momentum, nesterov=cfg.nesterov, fused=fused or None)
    return LARS(complete, lr=base, momentum=cfg.momentum, trust_coefficient=cfg.trust)


def set_lr(optimizer: torch.optim.Optimizer, step: int, steps: int, warmup: int, cfg: Optim, scale: float = 1.0) -> float:
    """Sets every group's learning rate for `step`; returns that of a group with lr_scale 1. A `fixed_lr` group stays at its peak.

    scale: factor of all groups, including fixed ones. If weight decay has a schedule, groups with weight decay get its value at `step`."""
    factor = scale * lr_factor(step, steps, warmup, cfg.lr_end, cfg.schedule)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * (scale if group["fixed_lr"] else factor)
        if cfg.weight_decay_end is not None and group["weight_decay"]:
            group["weight_decay"] = cosine_schedule(step, steps, cfg.weight_decay, cfg.weight_decay_end)
    first = optimizer.param_groups[0]
    return float(first["peak"] / first["lr_scale"] * factor)


def clip_gradients(parameters: Sequence[Tensor], limit: float | None) -> Tensor:
    """Scales the gradients to an L2 norm of at most `limit`, and returns their norm before: a scalar on their device."""
    return torch.nn.utils.clip_grad_norm_(parameters, limit if limit else math.inf)
