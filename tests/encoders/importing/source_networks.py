"""Vision transformers in plain PyTorch, computed independently of timm, and the names that their sources save them under."""

import re

import torch
import torch.nn.functional as F
from torch import nn


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


def attend(x, weight, bias, heads, added=0.0):
    """Softmax attention of tokens (B, N, D); added: to the logits, (H, N, N)."""
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in F.linear(x, weight, bias).chunk(3, dim=-1))
    logits = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5 + added
    return (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)


class Branch(nn.Module):
    """A module with the parameters that its block computes with."""

    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)


class SourceBlock(nn.Module):
    def __init__(self, width, heads, eps, scaled, gated, act):
        super().__init__()
        self.heads, self.gated, self.act = heads, gated, act
        self.norm1, self.norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.attn = Branch(qkv=nn.Linear(width, 3 * width), proj=nn.Linear(width, width))
        self.mlp = (
            Branch(w12=nn.Linear(width, 4 * width), w3=nn.Linear(2 * width, width))
            if gated
            else Branch(fc1=nn.Linear(width, 4 * width), fc2=nn.Linear(4 * width, width))
        )
        self.ls1, self.ls2 = (Branch(gamma=nn.Parameter(torch.full((width,), 0.5))) if scaled else None for _ in range(2))

    def forward(self, x):
        mixed = self.attn.proj(attend(self.norm1(x), self.attn.qkv.weight, self.attn.qkv.bias, self.heads))
        x = x + (mixed if self.ls1 is None else self.ls1.gamma * mixed)
        y = self.norm2(x)
        if self.gated:
            gate, up = self.mlp.w12(y).chunk(2, dim=-1)
            y = self.mlp.w3(F.silu(gate) * up)
        else:
            y = self.mlp.fc2(self.act(self.mlp.fc1(y)))
        return x + (y if self.ls2 is None else self.ls2.gamma * y)


class SourceVit(nn.Module):
    """Tokens (B, 1 + R + N, D) after the last norm, under the names of Meta's DINOv2."""

    def __init__(
        self, width=192, heads=3, depth=2, patch=16, size=64, registers=0, eps=1e-6, scaled=False, gated=False, act=F.gelu, pre_norm=False
    ):
        super().__init__()
        self.patch_embed = Branch(proj=nn.Conv2d(3, width, patch, patch, bias=not pre_norm))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (size // patch) ** 2, width))
        if registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, registers, width))
        self.norm_pre = nn.LayerNorm(width, eps) if pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(SourceBlock(width, heads, eps, scaled, gated, act) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps)

    def positions(self, height, width):
        """Of DINO and DINOv2: bicubic, the factor made larger by 0.1 of a patch."""
        side = int((self.pos_embed.shape[1] - 1) ** 0.5)
        if (height, width) == (side, side):
            return self.pos_embed
        grid = self.pos_embed[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, scale_factor=((height + 0.1) / side, (width + 0.1) / side), mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)

    def forward(self, x):
        grid = self.patch_embed.proj(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), grid.flatten(2).transpose(1, 2)], dim=1) + self.positions(*grid.shape[-2:])
        if hasattr(self, "register_tokens"):
            x = torch.cat([x[:, :1], self.register_tokens.expand(len(x), -1, -1), x[:, 1:]], dim=1)
        x = self.norm_pre(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


MMPRETRAIN = (
    (r"patch_embed\.proj\.", "patch_embed.projection."), (r"^norm\.", "ln1."), (r"^blocks\.", "layers."), (r"\.norm([12])\.", r".ln\1."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."), (r"\.mlp\.fc2\.", ".ffn.layers.1."),
)  # fmt: skip
OPENAI_CLIP = (
    (r"^cls_token$", "class_embedding"), (r"^pos_embed$", "positional_embedding"), (r"^patch_embed\.proj\.", "conv1."),
    (r"^norm_pre\.", "ln_pre."), (r"^norm\.", "ln_post."), (r"^blocks\.", "transformer.resblocks."), (r"\.norm([12])\.", r".ln_\1."),
    (r"\.attn\.qkv\.", ".attn.in_proj_"), (r"\.attn\.proj\.", ".attn.out_proj."), (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)  # fmt: skip
OFFICIAL_SWIN = (
    (r"^features\.0\.0\.", "patch_embed.proj."), (r"^features\.0\.2\.", "patch_embed.norm."),
    *((rf"^features\.{2 * i + 1}\.", f"layers.{i}.blocks.") for i in range(4)),
    *((rf"^features\.{2 * i + 2}\.", f"layers.{i}.downsample.") for i in range(3)),
    (r"\.mlp\.0\.", ".mlp.fc1."), (r"\.mlp\.3\.", ".mlp.fc2."),
)  # fmt: skip


def renamed(state, names, prefix=""):
    """`state` under other names: (expression, replacement) in order."""
    out = {}
    for key, value in state.items():
        for pattern, replacement in names:
            key = re.sub(pattern, replacement, key)
        out[prefix + key] = value
    return out


class SimMimBlock(nn.Module):
    def __init__(self, width, heads, scaled):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.attn = Branch(qkv=nn.Linear(width, 3 * width, bias=False), proj=nn.Linear(width, width))
        self.attn.q_bias, self.attn.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.mlp = Branch(fc1=nn.Linear(width, 4 * width), fc2=nn.Linear(4 * width, width))
        if scaled:
            self.gamma_1, self.gamma_2 = nn.Parameter(torch.full((width,), 0.5)), nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x, added):
        bias = torch.cat([self.attn.q_bias, torch.zeros_like(self.attn.q_bias), self.attn.v_bias])
        first, second = (self.gamma_1, self.gamma_2) if hasattr(self, "gamma_1") else (1, 1)
        x = x + first * self.attn.proj(attend(self.norm1(x), self.attn.qkv.weight, bias, self.heads, added))
        return x + second * self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


class SimMimVit(nn.Module):
    """The ViT of SimMIM in pretraining: tokens (B, 1 + N, D) after `norm`; one table of relative positions for all blocks."""

    def __init__(self, width=192, heads=3, depth=2, patch=16, size=64, scaled=True):
        super().__init__()
        self.side = size // patch
        self.patch_embed = Branch(proj=nn.Conv2d(3, width, patch, patch))
        self.cls_token, self.mask_token = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.zeros(1, 1, width))
        offsets = (2 * self.side - 1) ** 2
        self.rel_pos_bias = Branch(relative_position_bias_table=nn.Parameter(torch.zeros(offsets + 3, heads)))
        self.rel_pos_bias.register_buffer("relative_position_index", self.index(offsets))
        self.blocks = nn.ModuleList(SimMimBlock(width, heads, scaled) for _ in range(depth))
        self.norm = nn.LayerNorm(width, 1e-6)

    def index(self, offsets):
        """(1 + N, 1 + N): rows of the table; its last three are of the class token to patches, of patches to it, and of it to itself."""
        cells = [(row, column) for row in range(self.side) for column in range(self.side)]
        out = torch.empty(1 + len(cells), 1 + len(cells), dtype=torch.long)
        for i, (row, column) in enumerate(cells, 1):
            for j, (other_row, other_column) in enumerate(cells, 1):
                out[i, j] = (row - other_row + self.side - 1) * (2 * self.side - 1) + column - other_column + self.side - 1
        out[0, :], out[:, 0], out[0, 0] = offsets, offsets + 1, offsets + 2
        return out

    def forward(self, x):
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        added = self.rel_pos_bias.relative_position_bias_table[self.rel_pos_bias.relative_position_index].permute(2, 0, 1)
        for block in self.blocks:
            x = block(x, added)
        return self.norm(x)
