"""What masked methods share: pixels as patches, tokens chosen by index, and a ViT that sees some patches only.

Shapes: B images, C channels, H x W pixels, N patches, K chosen ones, P prefix tokens, p side of a patch, D width.
"""

import math

import torch
from einops import rearrange, repeat
from timm.layers import LayerNorm  # with eps 1e-6
from timm.models._manipulate import checkpoint_seq
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from encoders.runtime.errors import InputError


def require_vit(backbone: nn.Module, method: str) -> VisionTransformer:
    """`backbone`, if it is a plain ViT. Raises InputError for another network."""
    if not isinstance(backbone, VisionTransformer):
        raise InputError(
            f"method {method} needs a timm VisionTransformer, got {type(backbone).__name__}; choose e.g. arch=vit_small_patch16_224"
        )
    return backbone


def patchify(images: Tensor, p: int) -> Tensor:
    """(B, C, H, W) -> (B, N, p * p * C), patches row by row, channel last inside a patch."""
    return rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=p, q=p)


def unpatchify(patches: Tensor, p: int, rows: int) -> Tensor:
    """The inverse: (B, N, p * p * C) -> (B, C, H, W) with `rows` patches from top to bottom."""
    return rearrange(patches, "b (h w) (p q c) -> b c (h p) (w q)", h=rows, p=p, q=p)


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Row b of the result holds tokens[b, index[b]]: (B, N, D), (B, K) -> (B, K, D)."""
    return tokens.gather(1, repeat(index, "b k -> b k d", d=tokens.shape[-1]))


def encode_visible(vit: VisionTransformer, images: Tensor, keep: Tensor) -> Tensor:
    """Codes of the prefix tokens and the patches `keep` (B, K): (B, P + K, D). With all patches kept, timm's `forward_features`."""
    tokens = vit._pos_embed(vit.patch_embed(images))  # (B, P + N, D)
    prefix, patches = tokens[:, : vit.num_prefix_tokens], tokens[:, vit.num_prefix_tokens :]
    return encode_tokens(vit, torch.cat([prefix, gather_tokens(patches, keep)], dim=1))


def encode_tokens(vit: VisionTransformer, tokens: Tensor) -> Tensor:
    """What follows the position table in timm's `forward_features`: the blocks and the norms.  tokens: (B, P + K, D)."""
    x = vit.norm_pre(tokens)
    x = checkpoint_seq(vit.blocks, x) if vit.grad_checkpointing and vit.training else vit.blocks(x)
    codes: Tensor = vit.norm(x)
    return codes


def build_blocks(width: int, heads: int, depth: int) -> nn.Sequential:
    """Transformer blocks as those of timm's ViT, for a decoder or predictor of another width."""
    return nn.Sequential(*(Block(width, heads, mlp_ratio=4.0, qkv_bias=True, norm_layer=LayerNorm) for _ in range(depth)))


def init_truncated(module: nn.Module) -> None:
    """Weights as in BEiT's code, which SimMIM and I-JEPA follow: N(0, 0.02) cut at two standard deviations and zero biases.

    The last matrix of both branches of block l, from 1, is divided by sqrt(2 l). Norms are at the identity."""
    for m in module.modules():
        if isinstance(m, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(m.weight, std=0.02, a=-0.04, b=0.04)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, nn.LayerNorm) and m.elementwise_affine:
            nn.init.ones_(m.weight)
            nn.init.zeros_(m.bias)
    for depth, block in enumerate((m for m in module.modules() if isinstance(m, Block)), start=1):
        for last in (block.get_submodule("attn.proj"), block.get_submodule("mlp.fc2")):
            assert isinstance(last, nn.Linear)
            last.weight.data.div_(math.sqrt(2 * depth))
