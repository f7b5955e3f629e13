"""Tensors that know which tensors of the file they were computed from, so that a foreign filter cannot lose one unnoticed."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map


class TracedTensor(Tensor):
    """A tensor with the names of its origins; what any function of torch computes from it has the origins of all its arguments."""

    value: Tensor
    origins: frozenset[str]

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        origins: set[str] = set()

        def unwrap(x: object) -> object:
            if isinstance(x, TracedTensor):
                origins.update(x.origins)
                return x.value
            return x

        def wrap(x: object) -> object:
            return trace(x, frozenset(origins)) if isinstance(x, Tensor) and not isinstance(x, TracedTensor) else x

        return tree_map(wrap, func(*tree_map(unwrap, args), **tree_map(unwrap, dict(kwargs or {}))))


def trace(value: Tensor, origins: frozenset[str]) -> TracedTensor:
    """`value` with these origins."""
    traced: TracedTensor = torch.Tensor._make_subclass(TracedTensor, value.detach())
    traced.value, traced.origins = value, origins
    return traced
