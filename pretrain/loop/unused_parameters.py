"""Trainable parameters that a method never uses, which DDP cannot train: it waits for the gradient of each.

A timm network may bring such parameters, e.g. the attention pooling (`global_pool: map`) or `fc_norm` of a ViT that MAE passes tokens
through. Without a gradient no optimizer changes them, also not by weight decay, so that freezing them changes no number.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from encoders.runtime import dist


def list_without_gradient(module: nn.Module) -> set[str]:
    """Names of the trainable parameters that the last backward passes left without a gradient."""
    return {name for name, p in module.named_parameters() if p.requires_grad and p.grad is None}


def freeze_unused_parameters(module: nn.Module, unused: Iterable[str], device: torch.device) -> Sequence[str]:
    """Freezes the parameters that no rank uses, and returns their names.  unused: those without a gradient on this rank."""
    unused, trained = set(unused), [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    used = dist.max_over_ranks(torch.tensor([name not in unused for name, _ in trained], dtype=torch.int32, device=device))
    frozen = [pair for pair, is_used in zip(trained, used.tolist(), strict=True) if not is_used]
    for _, p in frozen:
        p.requires_grad_(False)
    return [name for name, _ in frozen]
