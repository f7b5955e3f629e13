"""Optimizers and schedules; every scheduled quantity is a pure function of the step, so that a resumed run needs no scheduler state."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from encoders.runtime.config import Config

REFERENCE_BATCH = 256  # published learning rates are given for this many images a step (Goyal et al. 2017, arXiv:1706.02677)


class Optim(Config):
    """The optimizer and its learning rate."""

    kind: Literal["sgd", "adamw", "lars"] = Field("adamw", description="optimizer")
    lr: float = Field(1.5e-4, gt=0, description="peak learning rate at a global batch of 256 images; scaled by `lr_rule`")
    lr_rule: Literal["linear", "sqrt", "none"] = Field("linear", description="lr x B/256, lr x sqrt(B/256), or lr as it stands")
    lr_end: float = Field(0.0, ge=0, le=1, description="learning rate at the last step as a part of the peak")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="course of the learning rate after the warm-up")
    weight_decay: float = Field(0.05, ge=0, description="decay of parameter groups that name none of their own")
    weight_decay_end: float | None = Field(None, ge=0, description="decay at the last step, reached by half a cosine; null: constant")
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd, lars: momentum")
    nesterov: bool = Field(False, description="sgd: Nesterov momentum")
    betas: tuple[float, float] = Field((0.9, 0.95), description="adamw: decay of the first and second moment")
    eps: float = Field(1e-8, gt=0, description="adamw: added to the root of the second moment")
    trust: float = Field(1e-3, gt=0, description="lars: trust coefficient eta")
    fused: bool | None = Field(None, description="sgd, adamw: all parameters in one kernel; null: where they are on a GPU")

    @model_validator(mode="after")
    def _decays(self) -> "Optim":
        if self.weight_decay_end is not None and not self.weight_decay:
            raise ValueError("weight_decay_end needs a weight_decay above 0 to start from")
        return self


def peak_lr(cfg: Optim, batch: int) -> float:
    """The peak learning rate for a global batch of `batch` images."""
    ratio = batch / REFERENCE_BATCH
    return cfg.lr * {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[cfg.lr_rule]


def cosine_schedule(step: int, steps: int, start: float, end: float) -> float:
    """`start` at step 0, `end` at `steps`, half a cosine between."""
    done = min(max(step / steps, 0.0), 1.0) if steps > 0 else 1.0
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * done))


def lr_factor(step: int, steps: int, warmup: int, end: float = 0.0, schedule: str = "cosine") -> float:
    """The learning rate at `step` (counted from 0) as a part of the peak: a straight line up over `warmup` steps, then the schedule.

    The first step is at 1/warmup, not 0: a step at learning rate 0 would only move the BatchNorm statistics."""
    if step < warmup:
        return (step + 1) / warmup
    return 1.0 if schedule == "constant" else cosine_schedule(step - warmup, steps - warmup, 1.0, end)


def build_optimizer(groups: Iterable[Mapping[str, Any]], cfg: Optim, batch: int) -> torch.optim.Optimizer:
    """The optimizer over `groups`, dicts of `params` and perhaps `weight_decay`, `lr_scale`, `fixed_lr` (no schedule), `name`.

    Only parameters that are trained enter. Raises ValueError when none is."""
    base = peak_lr(cfg, batch)
    ready: list[dict[str, Any]] = []
    own: dict[str, Any]
    for i, group in enumerate(groups):
        params = [p for p in group["params"] if p.requires_grad]
        own = {"weight_decay": cfg.weight_decay, "lr_scale": 1.0, "fixed_lr": False, "name": f"group{i}", **group, "params": params}
        own["peak"] = base * own["lr_scale"]  # kept in the group: `set_lr` needs nothing else
        own["lr"] = own["peak"]
        if params:
            ready.append(own)
    if not ready:
        raise ValueError("no parameter to train: every group is empty or frozen")
    fused = ready[0]["params"][0].is_cuda if cfg.fused is None else cfg.fused
    if cfg.kind == "adamw":
        return torch.optim.AdamW(ready, lr=base, betas=cfg.betas, eps=cfg.eps, fused=fused or None)  # None: torch's own choice
    if cfg.kind == "sgd":
        return torch.optim.SGD(ready, lr=base, momentum=cfg.momentum, nesterov=cfg.nesterov, fused=fused or None)
    from lightly.utils.lars import LARS  # groups without weight decay are not rescaled, as the papers want

    return LARS(ready, lr=base, momentum=cfg.momentum, trust_coefficient=cfg.trust)


def set_lr(optimizer: torch.optim.Optimizer, step: int, steps: int, warmup: int, cfg: Optim, scale: float = 1.0) -> float:
    """Sets every group's learning rate for `step`; returns that of a group with scale 1. A `fixed_lr` group stays at its peak.

    scale: of all of them, the fixed ones too. Where the weight decay has a schedule, groups that have any decay get that of the step."""
    now = scale * lr_factor(step, steps, warmup, cfg.lr_end, cfg.schedule)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * (scale if group["fixed_lr"] else now)
        if cfg.weight_decay_end is not None and group["weight_decay"]:
            group["weight_decay"] = cosine_schedule(step, steps, cfg.weight_decay, cfg.weight_decay_end)
    first = optimizer.param_groups[0]
    return first["peak"] / first["lr_scale"] * now


def clip_gradients(parameters: Sequence[Tensor], limit: float | None) -> Tensor:
    """The L2 norm of all gradients (a scalar on their device: reading it is a sync), which are scaled down to `limit` if above."""
    return torch.nn.utils.clip_grad_norm_(parameters, limit if limit else math.inf)
