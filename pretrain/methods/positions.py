"""The fixed sine-cosine position table of a grid of patches.

Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.5, applied to columns and rows by halves as in MAE and MoCo v3.
"""

import torch
from einops import rearrange, repeat
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor


def freeze_sincos_positions(vit: VisionTransformer) -> None:
    """Sets the position table of a ViT to that of its grid, with zeros for prefix tokens, and excludes it from training."""
    if vit.pos_embed is not None:
        table = sincos_2d(vit.embed_dim, vit.patch_embed.grid_size)
        extra = vit.pos_embed.shape[1] - table.shape[1]
        vit.pos_embed.data.copy_(torch.cat([table.new_zeros(1, extra, table.shape[-1]), table], dim=1))
        vit.pos_embed.requires_grad_(False)


def sincos_2d(dim: int, grid: tuple[int, int]) -> Tensor:
    """(1, rows * columns, dim): the first half of the width encodes the column, the second the row.

    Raises ValueError unless dim is a multiple of 4."""
    if dim % 4:
        raise ValueError(f"a sine-cosine position table needs a width that is a multiple of 4, got {dim}")
    rows, columns = grid
    row = repeat(sincos_1d(dim // 2, rows), "h d -> h w d", w=columns)
    column = repeat(sincos_1d(dim // 2, columns), "w d -> h w d", h=rows)
    return rearrange(torch.cat([column, row], dim=-1), "h w d -> 1 (h w) d")


def sincos_1d(dim: int, n: int) -> Tensor:
    """(n, dim): sines, then cosines, of position times 10000 ** (-2 i / dim)."""
    speed = 10000.0 ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim / 2))
    angle = torch.outer(torch.arange(n, dtype=torch.float64), speed)
    return torch.cat([angle.sin(), angle.cos()], dim=1).float()
