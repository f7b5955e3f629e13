"""Constant tensors on a device: computed and copied once, because a copy from the host in the middle of a step makes the host wait.

On a CPU there is nothing to copy, and nothing is cached.
"""

from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from encoders.runtime.arrays import Array

MAX_CONSTANTS = 512  # a process uses a few dozen, of one or two image sizes


def device_constant(build: Callable[..., Array], *arguments: Hashable, like: Tensor) -> Tensor:
    """The array `build(*arguments)` as a tensor on the device of `like`. Not to be changed in place.

    build: a function of a module, not a lambda: it is part of the cache's key."""
    if like.device.type == "cpu":
        return torch.from_numpy(build(*arguments))
    return _cached_constant(build, arguments, like.device, getattr(like, "fake_mode", None))


@lru_cache(MAX_CONSTANTS)
def _cached_constant(build: Callable[..., Array], arguments: tuple[Any, ...], device: torch.device, fake_mode: object) -> Tensor:
    """fake_mode: that of a fake tensor; a constant made under one cannot be used under another."""
    return torch.from_numpy(build(*arguments)).to(device, non_blocking=True)
