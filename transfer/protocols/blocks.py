"""What a frozen network says of an image at its last blocks, for probes that look deeper than the pooled features.

A transformer gives its class token after each of the last four blocks, normalised by its last norm, and the mean of the last block's patch
tokens, as DINOv2's `linear.py`; one without a class token gives the mean of the patch tokens instead. A CNN has neither: it gives its own
pooled features for the last block and the mean of the map for each of the three stages before, and no patch mean, which would be the same.

Shapes: B images, D width of a block, N patch tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encoders.runtime.errors import InputError
from encoders.zoo import backbone

N_LAST_BLOCKS = 4


@dataclass(frozen=True)
class BlockFeatures:
    """tokens: one (B, D) a block, the last one last.  patches: (B, D) mean patch token of the last block; None for a CNN."""

    tokens: list[Tensor]
    patches: Tensor | None

    def inputs(self) -> dict[str, Tensor]:
        """The four inputs of DINOv2's heads (two for a CNN): last 1 or last 4 blocks, without and with the mean patch token."""
        found = {"last 1": self.tokens[-1], "last 4": torch.cat(self.tokens, dim=1)}
        if self.patches is not None:
            found |= {f"{name} + patches": torch.cat([x, self.patches], dim=1) for name, x in list(found.items())}
        return found


def extract_last_blocks(model: nn.Module, x: Tensor) -> BlockFeatures:
    """Of prepared images (B, K, S, S). Raises InputError for a network that timm cannot look into."""
    if not hasattr(model, "forward_intermediates"):
        raise InputError(f"{type(model).__name__} does not show its inner blocks, which linear.preset=dinov2 needs; use linear.preset=mae")
    if hasattr(model, "blocks") and hasattr(model, "patch_embed") and hasattr(model, "num_prefix_tokens"):
        n = min(N_LAST_BLOCKS, len(model.blocks))  # type: ignore[arg-type]
        seen = model.forward_intermediates(  # type: ignore[operator]
            x, indices=n, return_prefix_tokens=True, norm=True, output_fmt="NLC", intermediates_only=True
        )
        own = getattr(model, "cls_token", None) is not None
        return BlockFeatures([prefix[:, 0] if own else patches.mean(1) for patches, prefix in seen], seen[-1][0].mean(1))
    stages = model.forward_intermediates(x, intermediates_only=True)[-N_LAST_BLOCKS:]  # type: ignore[operator]
    return BlockFeatures([*(stage.mean((2, 3)) for stage in stages[:-1]), backbone.pooled_features(model, x)], None)
