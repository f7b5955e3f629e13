"""Features of a frozen network from its last blocks, for probes that use more than the pooled features.

A transformer gives its class token after each of the last four blocks, normalised by its final norm, and the mean patch token of the last
block, as in `linear.py` of DINOv2; a transformer without a class token gives the mean patch token instead. A CNN gives its pooled features
for the last block and the spatial mean of each of the three stages before, and no patch mean, which would equal the pooled features.

Shapes: B images, D width of a block, N patch tokens.
"""

from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor, nn

from encoders.runtime.errors import InputError
from encoders.zoo import backbone

N_LAST_BLOCKS = 4


@dataclass(frozen=True)
class BlockFeatures:
    """tokens: one (B, D) per block, the last block last.  patches: (B, D) mean patch token of the last block; None for a CNN."""

    tokens: list[Tensor]
    patches: Tensor | None

    def inputs(self) -> dict[str, Tensor]:
        """The four inputs of the heads of DINOv2 (two for a CNN): last 1 or last 4 blocks, without and with the mean patch token."""
        inputs = {"last 1": self.tokens[-1], "last 4": torch.cat(self.tokens, dim=1)}
        if self.patches is not None:
            inputs |= {f"{name} + patches": torch.cat([x, self.patches], dim=1) for name, x in list(inputs.items())}
        return inputs


@runtime_checkable
class HasIntermediates(Protocol):
    """A timm network that returns the outputs of its blocks or stages."""

    def forward_intermediates(self, x: Tensor, **options: Any) -> list[Any]: ...


class HasTokens(HasIntermediates, Protocol):
    """A timm transformer."""

    blocks: nn.Sequential


def has_tokens(model: nn.Module) -> TypeGuard[HasTokens]:
    """Whether a timm network is a transformer. By `hasattr`: the static lookup of runtime protocols misses children of an nn.Module."""
    return hasattr(model, "blocks") and hasattr(model, "patch_embed") and hasattr(model, "num_prefix_tokens")


def extract_last_blocks(model: nn.Module, x: Tensor) -> BlockFeatures:
    """Features of prepared images (B, K, S, S). Raises InputError for a network whose blocks timm does not return."""
    if not isinstance(model, HasIntermediates):
        raise InputError(
            f"{type(model).__name__} does not return the outputs of its blocks, which linear.preset=dinov2 needs; use linear.preset=mae"
        )
    if has_tokens(model):
        has_cls_token = getattr(model, "cls_token", None) is not None
        n = min(N_LAST_BLOCKS, len(model.blocks))
        outputs = model.forward_intermediates(x, indices=n, return_prefix_tokens=True, norm=True, output_fmt="NLC", intermediates_only=True)
        return BlockFeatures([prefix[:, 0] if has_cls_token else patches.mean(1) for patches, prefix in outputs], outputs[-1][0].mean(1))
    stages = model.forward_intermediates(x, intermediates_only=True)[-N_LAST_BLOCKS:]
    return BlockFeatures([*(stage.mean((2, 3)) for stage in stages[:-1]), backbone.pooled_features(model, x)], None)
