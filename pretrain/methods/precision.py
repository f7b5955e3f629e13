"""Losses and similarities in float32 or better, whatever autocast says."""

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import ParamSpec, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F

P = ParamSpec("P")
R = TypeVar("R")


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision becomes float32; other types stay."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def l2_normalize(x: Tensor) -> Tensor:
    """Rows of length 1, in float32 or better; float64 stays, so that gradients can be compared in it."""
    return F.normalize(at_least_float32(x), dim=-1)


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """`function` in float32 or better: positional arguments in half precision are converted, and autocast is off inside."""

    @wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        converted = [_convert_argument(a) for a in args]
        device = next((a.device.type for a in _iter_tensors(converted)), "cpu")
        with torch.autocast(device, enabled=False):
            return cast(Callable[..., R], function)(*converted, **kwargs)

    return inner


def _convert_argument(x: object) -> object:
    if isinstance(x, list):
        return [_convert_argument(a) for a in x]
    return at_least_float32(x) if isinstance(x, Tensor) else x


def _iter_tensors(args: Iterable[object]) -> Iterator[Tensor]:
    for a in args:
        if isinstance(a, Tensor):
            yield a
        elif isinstance(a, list):
            yield from _iter_tensors(a)
