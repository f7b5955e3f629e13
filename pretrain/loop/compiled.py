"""torch.compile for a method, so that a step does not compile it again."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from pretrain.methods import Method


def compile_method(method: Method, backend: str | Callable[..., Callable[..., object]] = "inductor", fullgraph: bool = False) -> None:
    """Compiles the forward pass of `method` in place; names in `state_dict` stay the same.

    `progress` differs in every step, and a Python number that the graph uses would be one of its constants: the graph gets a float64
    scalar on the CPU in its place, which is an input as the images are.

    backend, fullgraph: as for `torch.compile`; `fullgraph` raises an error at a graph break."""
    compiled = torch.compile(method.forward, backend=backend, fullgraph=fullgraph)

    def forward(views: list[Tensor], masks: object, progress: float, *args: object, **values: object) -> dict[str, Tensor]:
        scalar = torch.tensor(progress, dtype=torch.float64)
        return cast(Callable[..., dict[str, Tensor]], compiled)(views, masks, scalar, *args, **values)

    setattr(method, "forward", forward)  # noqa: B010  # a method of a class cannot be assigned for the type checker
