"""Heads of published linear probes on features that change with every augmented batch; the network before them is frozen.

mae     BatchNorm without parameters, then one linear layer, by LARS with momentum .9 and trust .001, no weight decay; the rate rises over
        ten epochs to .1 B / 256 and falls by a cosine to 0.  Source: mae `main_linprobe.py`, `util/lars.py`, `util/lr_sched.py`.
dinov2  for each of four inputs a linear layer for each of thirteen rates (times B / 256), all at once on the sum of their losses, by SGD
        with momentum .9, cosine to 0.  Source: dinov2 `eval/linear.py`.

Targets: (B, K) one-hot, or any 0/1 with NaN = unknown for a multi-label task, which the papers do not have; the loss is then the mean
binary cross-entropy over known labels.

Shapes: B rows of a step, D width, K outputs, H heads of one input.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DINOV2_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)
MOMENTUM, LARS_TRUST = 0.9, 1e-3


def head_losses(logits: Tensor, y: Tensor, exclusive: bool) -> Tensor:
    """(H,) mean loss of every head. logits: (B, H, K).  y: (B, K); exclusive: its rows are one-hot."""
    if exclusive:
        return -(F.log_softmax(logits, dim=-1) * y[:, None]).sum(-1).mean(0)
    known = ~torch.isnan(y)
    each = F.binary_cross_entropy_with_logits(logits, torch.nan_to_num(y)[:, None].expand_as(logits), reduction="none")
    return (each * known[:, None]).sum((0, 2)) / known.sum().clamp(min=1)


class MaeHead:
    """The head of MAE's probe. step(): one update on features (B, D)."""

    def __init__(self, width: int, outputs: int, exclusive: bool, batch: int, steps: int, warmup: int):
        self.norm = nn.BatchNorm1d(width, affine=False, eps=1e-6)
        self.linear = nn.Linear(width, outputs)
        nn.init.trunc_normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)
        self.exclusive, self.steps, self.warmup, self.peak = exclusive, steps, warmup, 0.1 * batch / 256
        self.moved = [torch.zeros_like(p) for p in self.linear.parameters()]
        self.at = 0

    def rate(self, step: int) -> float:
        """The learning rate: a straight line from 0, then half a cosine."""
        if step < self.warmup:
            return self.peak * step / self.warmup
        return self.peak * 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / (self.steps - self.warmup)))

    def step(self, x: Tensor, y: Tensor) -> float:
        """Returns the loss before the update."""
        self.norm.train()
        loss = head_losses(self.linear(self.norm(x))[:, None], y, self.exclusive).sum()
        gradients = torch.autograd.grad(loss, list(self.linear.parameters()))
        rate = self.rate(self.at)
        with torch.no_grad():
            for p, g, moved in zip(self.linear.parameters(), gradients, self.moved, strict=True):
                moved.mul_(MOMENTUM).add_(scale_by_lars(p, g) if p.ndim > 1 else g)
                p.sub_(moved, alpha=rate)
        self.at += 1
        return float(loss.detach())

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """(M, K) with the running statistics."""
        self.norm.eval()
        return self.linear(self.norm(x))


def scale_by_lars(parameter: Tensor, gradient: Tensor) -> Tensor:
    """LARS: the gradient with the length `TRUST` times the parameter's, unless one of them is zero."""
    size, slope = parameter.norm(), gradient.norm()
    return gradient * (LARS_TRUST * size / slope) if size > 0 and slope > 0 else gradient


class DinoV2Heads:
    """All heads of DINOv2's probe; of every input (name -> width) one for each rate."""

    def __init__(self, widths: Mapping[str, int], outputs: int, exclusive: bool, batch: int, steps: int):
        self.exclusive, self.steps, self.at = exclusive, steps, 0
        self.rates = torch.tensor(DINOV2_RATES) * batch / 256  # (H,)
        self.weight = {name: torch.randn(len(DINOV2_RATES), outputs, width) * 0.01 for name, width in widths.items()}  # (H, K, D)
        self.bias = {name: torch.zeros(len(DINOV2_RATES), outputs) for name in widths}
        self.moved = {name: (torch.zeros_like(self.weight[name]), torch.zeros_like(self.bias[name])) for name in widths}

    def step(self, inputs: Mapping[str, Tensor], y: Tensor) -> float:
        """One update of every head; returns the sum of the losses before it."""
        rate = self.rates * 0.5 * (1 + math.cos(math.pi * self.at / self.steps))  # (H,)
        total = 0.0
        for name, x in inputs.items():
            weight, bias = self.weight[name].requires_grad_(), self.bias[name].requires_grad_()
            loss = head_losses(batched_linear(x, weight, bias), y, self.exclusive).sum()
            gradients = torch.autograd.grad(loss, [weight, bias])
            with torch.no_grad():
                for p, g, moved in zip((weight, bias), gradients, self.moved[name], strict=True):
                    moved.mul_(MOMENTUM).add_(g)
                    p.sub_(moved * rate.view(-1, *[1] * (p.ndim - 1)))
            total += float(loss.detach())
        self.at += 1
        return total

    @torch.no_grad()
    def logits(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(M, H, K) of every input."""
        return {name: batched_linear(x, self.weight[name], self.bias[name]) for name, x in inputs.items()}


def batched_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(B, H, K) outputs of H linear layers on the same rows."""
    return (x @ weight.flatten(0, 1).T).view(len(x), *bias.shape) + bias
