"""Head warm-up: for the first steps only the heads are trained, and the backbone stays bit-identical to its start.

New heads send random gradients into pretrained weights. Source: Kumar et al. 2022 (arXiv:2202.10054), LP-FT: first the head, then all.

While it is frozen, the parameters of the backbone have no gradient, so that every optimizer skips them: no step, no weight decay, no
momentum. The running statistics of its BatchNorm, and those of the encoder that is exported, are put back after each step. Afterwards the
backbone has a warm-up of its own, as long as that of the heads.

Departure: the backward pass through the frozen backbone is computed and discarded, because DDP expects the same gradients in every step.
"""

import torch
from torch import Tensor, nn


class HeadWarmup:
    """Freezes a backbone for `steps` steps. It has no state: what it does is a function of the step."""

    def __init__(self, backbone: nn.Module, exported: nn.Module, steps: int, warmup: int):
        """exported: the encoder of the method, which may be the slow copy of the backbone.  warmup: steps."""
        self.backbone, self.exported, self.steps, self.warmup = backbone, exported, steps, warmup
        self.buffers: list[tuple[Tensor, Tensor]] = []  # each buffer, and its value before the step

    def begin_step(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Scales the learning rate of the groups marked `backbone`, which `set_lr` has set for `step`."""
        for group in optimizer.param_groups:
            if group.get("backbone"):
                group["lr"] *= self.lr_ratio(step)
        buffers = {id(b): b for module in (self.backbone, self.exported) for b in module.buffers()} if step < self.steps else {}
        self.buffers = [(b, b.clone()) for b in buffers.values()]

    def lr_ratio(self, step: int) -> float:
        """Learning rate of the backbone relative to that of the heads: 0 while it is frozen, then that of a warm-up that starts later."""
        if step < self.steps:
            return 0.0
        return _ramp(step - self.steps, self.warmup) / _ramp(step, self.warmup)

    @torch.no_grad()
    def hold_backbone(self, step: int) -> None:
        """Discards the gradients of the backbone and restores its buffers, if it is still frozen. Call it after the last backward pass."""
        if step >= self.steps:
            return
        for p in self.backbone.parameters():
            p.grad = None
        for buffer, value in self.buffers:
            buffer.copy_(value)


def _ramp(step: int, warmup: int) -> float:
    """1/warmup at step 0, 1 from step warmup - 1 on."""
    return min((step + 1) / warmup, 1.0) if warmup else 1.0
