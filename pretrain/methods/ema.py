"""Exponential moving averages (EMA): how a slow network follows a trained one."""

import math

import torch
from torch import nn


@torch.no_grad()
def ema_(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """Moves the parameters of `slow` towards those of `fast`: slow = momentum * slow + (1 - momentum) * fast, in place.

    Parameters are paired by order. Buffers stay: a slow module in train mode keeps BatchNorm statistics of its own, as in the authors'
    code."""
    torch._foreach_lerp_(list(slow.parameters()), [p.detach() for p in fast.parameters()], 1.0 - momentum)


def scaled_momentum(momentum: float, batch: int, published_batch: int) -> float:
    """The EMA momentum with the same half-life in images: m ** (B / B_published). Source: Busbridge et al. 2023 (arXiv:2307.13813)."""
    return float(momentum ** (batch / published_batch))


def cosine_momentum(start: float, progress: float) -> float:
    """EMA momentum that rises from `start` to 1 along half a cosine.  progress: fraction of the run that is done."""
    return 1.0 - (1.0 - start) * (math.cos(math.pi * progress) + 1.0) / 2.0
