"""LARS, layer-wise adaptive rates of SGD with momentum, in operations over lists of tensors: their number does not grow with the network,
and none waits for the device.

    d = f (g + w p)              f = trust |p| / (|g| + w |p| + eps), for each tensor p with gradient g and weight decay w
    v = momentum v + d
    p = p - lr v

Source: You et al. 2017 (arXiv:1708.03888), equation 6 and algorithm 1. Groups without weight decay (biases, norms) are not rescaled, as in
SimCLR (arXiv:2002.05709) and BYOL (arXiv:2006.07733). A tensor of zeros is not rescaled; one with a zero gradient keeps its value but for
its momentum. State and settings have the names of lightly's and Lightning Bolts' LARS, so that their checkpoints load.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class LARS(torch.optim.Optimizer):
    """SGD with momentum in which the step of each tensor is proportional to its norm."""

    def __init__(
        self, params: Iterable[Mapping[str, Any]], lr: float, momentum: float = 0.9, weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3, eps: float = 1e-8,
    ):  # fmt: skip
        """params: groups; each can have its own `lr` and `weight_decay`.  trust_coefficient, eps: as above."""
        super().__init__(
            [dict(group) for group in params],
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust_coefficient": trust_coefficient, "eps": eps},
        )
        self._spreads: dict[tuple[int, ...], SpreadFactors] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._spreads = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch declares overloads
        """One step with the gradients; tensors without a gradient stay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._step_group(params, group)
        return loss

    def _step_group(self, params: list[Tensor], group: Mapping[str, Any]) -> None:
        steps = [p.grad for p in params if p.grad is not None]
        if group["weight_decay"]:
            factors = lars_factors(params, steps, group["weight_decay"], group["trust_coefficient"], group["eps"])
            steps = list(torch._foreach_add(steps, params, alpha=group["weight_decay"]))
            torch._foreach_mul_(steps, self._spread(factors, steps, params))
        if group["momentum"]:
            if new := [(p, d) for p, d in zip(params, steps, strict=True) if "momentum_buffer" not in self.state[p]]:
                for (p, _), buffer in zip(new, torch._foreach_mul([d for _, d in new], 0.0), strict=True):
                    self.state[p]["momentum_buffer"] = buffer
            buffers: list[Tensor] = [self.state[p]["momentum_buffer"] for p in params]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, steps)
            steps = buffers
        torch._foreach_add_(params, steps, alpha=-group["lr"])

    def _spread(self, factors: Tensor, like: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        """`factors` (P,) as P tensors in the shapes of `like`. The memory is kept: making the views takes an operation for each."""
        key = tuple(map(id, params))
        if key not in self._spreads:
            self._spreads = {group: spread for group, spread in self._spreads.items() if not set(group) & set(key)}
            self._spreads[key] = SpreadFactors(like, factors)
        return self._spreads[key].fill(factors)


class SpreadFactors:
    """One factor per tensor, repeated in the tensor's shape and memory order.

    torch multiplies two lists of tensors of equal shapes in a few kernels, but a list by a list of scalars tensor by tensor."""

    BLOCK = 64  # values that are looked up at once

    def __init__(self, like: Sequence[Tensor], factors: Tensor):
        blocks = [-(-t.numel() // self.BLOCK) for t in like]
        self.owner = torch.repeat_interleave(torch.tensor(blocks)).to(factors.device)  # (blocks,) the tensor that each belongs to
        self.values = factors.new_empty(sum(blocks), self.BLOCK)
        starts = itertools.accumulate(blocks, initial=0)
        self.views = [self.values.as_strided(t.shape, t.stride(), start * self.BLOCK) for t, start in zip(like, starts, strict=False)]

    def fill(self, factors: Tensor) -> list[Tensor]:
        """The views, filled with `factors` (P,)."""
        self.values.copy_(factors[self.owner][:, None].expand_as(self.values))
        return self.views


def lars_factors(params: list[Tensor], grads: list[Tensor], weight_decay: float, trust: float, eps: float) -> Tensor:
    """(P,) what the step of each of P tensors is multiplied with."""
    p, g = torch.stack(torch._foreach_norm(params)), torch.stack(torch._foreach_norm(grads))
    factors = p / (g + p * weight_decay + eps) * trust
    return torch.where(g == 0, 0.0, torch.where(p == 0, 1.0, factors))
