"""Heads of published linear probes on features of augmented batches; the network before them is frozen.

mae     BatchNorm without parameters, then one linear layer, trained by LARS with momentum 0.9, trust coefficient 0.001 and no weight decay;
        the learning rate rises over ten epochs to 0.1 B / 256 and falls to 0 by a cosine.
        Source: mae `main_linprobe.py`, `util/lars.py`, `util/lr_sched.py`.
dinov2  for each of four inputs one linear layer per learning rate (thirteen, times B / 256), trained together on the sum of their losses
        by SGD with momentum 0.9 and a cosine to 0.  Source: dinov2 `eval/linear.py`.

Targets: (B, K) one-hot, or 0/1 with NaN = unknown for a multi-label task, which the papers do not cover; the loss is then the mean binary
cross-entropy over known labels.

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
    """The head of the linear probe of MAE. step(): one update on features (B, D)."""

    def __init__(self, width: int, outputs: int, exclusive: bool, batch: int, steps: int, warmup: int):
        self.norm = nn.BatchNorm1d(width, affine=False, eps=1e-6)
        self.linear = nn.Linear(width, outputs)
        nn.init.trunc_normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)
        self.exclusive, self.steps, self.warmup, self.peak_lr = exclusive, steps, warmup, 0.1 * batch / 256
        self.momentum_buffers = [torch.zeros_like(p) for p in self.linear.parameters()]
        self.step_count = 0

    def rate(self, step: int) -> float:
        """The learning rate: linear warm-up from 0, then half a cosine."""
        if step < self.warmup:
            return self.peak_lr * step / self.warmup
        return self.peak_lr * 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / (self.steps - self.warmup)))

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One update; returns the loss before it, on its device: the host does not wait for it."""
        self.norm.train()
        loss = head_losses(self.linear(self.norm(x))[:, None], y, self.exclusive).sum()
        gradients = torch.autograd.grad(loss, list(self.linear.parameters()))
        rate = self.rate(self.step_count)
        with torch.no_grad():
            for p, g, buffer in zip(self.linear.parameters(), gradients, self.momentum_buffers, strict=True):
                buffer.mul_(MOMENTUM).add_(scale_by_lars(p, g) if p.ndim > 1 else g)
                p.sub_(buffer, alpha=rate)
        self.step_count += 1
        return loss.detach()

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """(M, K) logits with the running statistics."""
        self.norm.eval()
        logits: Tensor = self.linear(self.norm(x))
        return logits


def scale_by_lars(parameter: Tensor, gradient: Tensor) -> Tensor:
    """LARS: the gradient rescaled to LARS_TRUST times the norm of the parameter, unless one of the two norms is zero."""
    parameter_norm, gradient_norm = parameter.norm(), gradient.norm()
    scale = LARS_TRUST * parameter_norm / gradient_norm
    return gradient * torch.where((parameter_norm > 0) & (gradient_norm > 0), scale, torch.ones_like(scale))


class DinoV2Heads:
    """All heads of the linear probe of DINOv2: one per input (name -> width) and learning rate."""

    def __init__(self, widths: Mapping[str, int], outputs: int, exclusive: bool, batch: int, steps: int):
        self.exclusive, self.steps, self.step_count = exclusive, steps, 0
        self.rates = torch.tensor(DINOV2_RATES) * batch / 256  # (H,)
        self.weight = {name: torch.randn(len(DINOV2_RATES), outputs, width) * 0.01 for name, width in widths.items()}  # (H, K, D)
        self.bias = {name: torch.zeros(len(DINOV2_RATES), outputs) for name in widths}
        self.momentum_buffers = {name: (torch.zeros_like(self.weight[name]), torch.zeros_like(self.bias[name])) for name in widths}

    def step(self, inputs: Mapping[str, Tensor], y: Tensor) -> Tensor:
        """One update of every head; returns the sum of the losses before it, on its device: the host does not wait for it."""
        rate = self.rates * 0.5 * (1 + math.cos(math.pi * self.step_count / self.steps))  # (H,)
        total = torch.zeros((), device=y.device)
        for name, x in inputs.items():
            weight, bias = self.weight[name].requires_grad_(), self.bias[name].requires_grad_()
            loss = head_losses(batched_linear(x, weight, bias), y, self.exclusive).sum()
            gradients = torch.autograd.grad(loss, [weight, bias])
            with torch.no_grad():
                for p, g, buffer in zip((weight, bias), gradients, self.momentum_buffers[name], strict=True):
                    buffer.mul_(MOMENTUM).add_(g)
                    p.sub_(buffer * rate.view(-1, *[1] * (p.ndim - 1)))
            total = total + loss.detach()
        self.step_count += 1
        return total

    @torch.no_grad()
    def logits(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(M, H, K) logits for every input."""
        return {name: batched_linear(x, self.weight[name], self.bias[name]) for name, x in inputs.items()}


def batched_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(B, H, K) outputs of H linear layers on the same rows."""
    return (x @ weight.flatten(0, 1).T).view(len(x), *bias.shape) + bias
