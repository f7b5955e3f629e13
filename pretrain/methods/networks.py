"""Networks that several methods share: heads, frozen copies, and what local crops need from a backbone."""

from copy import deepcopy
from itertools import pairwise
from typing import TypeVar

from timm.layers import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from encoders.runtime.errors import InputError

M = TypeVar("M", bound=nn.Module)


def mlp(widths: list[int], norm: bool = True, last_norm: bool = False, last_bias: bool = True) -> nn.Sequential:
    """Linear layers with ReLU between them.

    norm: BatchNorm before each ReLU.  last_norm: BatchNorm without scale or shift at the end.  last_bias: bias of the last layer, if it
    has no BatchNorm."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        last = i == len(widths) - 2
        has_norm = last_norm if last else norm
        layers.append(nn.Linear(a, b, bias=not has_norm and (last_bias or not last)))  # BatchNorm's shift makes a bias redundant
        if has_norm:
            layers.append(nn.BatchNorm1d(b, affine=not last))
        if not last:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def frozen_copy(module: M) -> M:
    """An equal module without gradients, drop path or dropout: the teacher or key encoder at step 0.

    Other stochastic layers (PatchDropout, Dropout2d) stay as they are."""
    copy = deepcopy(module)
    copy.requires_grad_(False)
    for m in copy.modules():
        if isinstance(m, DropPath):
            m.drop_prob = 0.0
        elif isinstance(m, nn.Dropout):
            m.p = 0.0
    return copy


def local_crop_pixels(backbone: nn.Module, pixels: float) -> int:
    """Side of a local crop of about `pixels` pixels: a whole number of patches of a ViT, at least one."""
    patch = backbone.patch_embed.patch_size[0] if isinstance(backbone, VisionTransformer) else 1
    return max(round(pixels / patch), 1) * patch


def require_dynamic_image_size(backbone: nn.Module, method: str) -> None:
    """Raises InputError for a ViT that accepts images of one size only."""
    if isinstance(backbone, VisionTransformer) and not backbone.dynamic_img_size:
        raise InputError(
            f"method {method} gives a ViT crops of two sizes: add model_args.dynamic_img_size=true to the recipe, or set method.n_local=0"
        )
