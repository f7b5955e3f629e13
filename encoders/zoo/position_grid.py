"""Position embeddings for another size of the input, by the rule of the code that the weights come from.

N tokens with a position, P of them before the patches; G side of the grid of patches; D width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.zoo.card import PositionRule

METHODS: dict[str, str] = {
    "timm": "bicubic, antialiased (timm)",
    "hf": "bicubic, not antialiased (transformers)",
    "dino": "bicubic, not antialiased, factor (G + 0.1) / G (DINO)",
}


def resample_positions(positions: Tensor, grid: tuple[int, int], prefix: int, rule: PositionRule) -> Tensor:
    """(1, P + H * W, D): the grid resampled to `grid`, the first P tokens unchanged.

    positions: (1, P + G * G, D).  Source: timm `resample_abs_pos_embed`; transformers `Dinov2Embeddings.interpolate_pos_encoding`; DINO
    `VisionTransformer.interpolate_pos_encoding`, which adds 0.1 to the size so that rounding does not lose a row."""
    patches = positions[:, prefix:]
    side = math.isqrt(patches.shape[1])
    if (side, side) == grid:
        return positions
    x = patches.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)  # (1, D, G, G)
    if rule == "dino":
        x = F.interpolate(x, scale_factor=((grid[0] + 0.1) / side, (grid[1] + 0.1) / side), mode="bicubic")
    else:
        x = F.interpolate(x, size=grid, mode="bicubic", antialias=rule == "timm")
    return _join_tokens(positions[:, :prefix], x)


def _join_tokens(prefix: Tensor, x: Tensor) -> Tensor:
    """(1, P + H * W, D) of the tokens (1, P, D) and a map (1, D, H, W)."""
    return torch.cat([prefix, x.flatten(2).transpose(1, 2).to(prefix.dtype)], dim=1)


def positions_of(network: nn.Module) -> tuple[Tensor, tuple[int, int], int] | None:
    """The network's position embeddings, the grid of its patches, and the number of positions before them; None without any."""
    positions, embed = getattr(network, "pos_embed", None), getattr(network, "patch_embed", None)
    grid = getattr(embed, "grid_size", None)
    if not isinstance(positions, Tensor) or positions.ndim != 3 or grid is None:
        return None
    height, width = grid
    return positions, (int(height), int(width)), positions.shape[1] - int(height) * int(width)
