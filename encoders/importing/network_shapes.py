"""The timm network and its arguments, from the names and shapes of tensors that already have timm's names.

Shapes do not tell the number of heads: it is timm's for the usual widths, and must be given for others.
"""

import json
import math
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor

from encoders.runtime.errors import InputError
from encoders.zoo import backbone

USUAL_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1536: 24}
VIT_NAMES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge", 1536: "giant"}
DINOV3_NAMES = {384: "small", 768: "base", 1024: "large", 1280: "huge_plus", 4096: "7b"}
EVA02_NAMES = {192: "tiny", 384: "small", 768: "base", 1024: "large"}


class NetworkShape(NamedTuple):
    """A network and the side of its input that the positions in the file were made for (None: any)."""

    arch: str
    model_args: dict[str, Any]
    size: int | None


def infer_network(rule: str | tuple[str, ...], tensors: Mapping[str, Tensor], args: Mapping[str, Any], channels: int) -> NetworkShape:
    """The network of these tensors. Raises InputError if none of timm's has them."""
    if isinstance(rule, tuple):
        return _first_that_fits(rule, tensors, args, channels)
    if rule not in ("vit", "swin", "dinov3", "eva02", "beit"):
        raise InputError("these tensors do not tell their network; name it with --arch")
    return {"vit": _vit, "swin": _swin, "dinov3": _dinov3, "eva02": _eva02, "beit": _beit}[rule](tensors, args)


def shapes_of(arch: str, args: Mapping[str, Any], channels: int, size: int) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the network's tensors, without computing any."""
    return _cached_shapes(arch, json.dumps(dict(args), sort_keys=True), channels, size)


@cache
def _cached_shapes(arch: str, args: str, channels: int, size: int) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in backbone.build_backbone(arch, json.loads(args), channels, size).state_dict().items()}


def _first_that_fits(archs: tuple[str, ...], tensors: Mapping[str, Tensor], args: Mapping[str, Any], channels: int) -> NetworkShape:
    own = sorted((*t.shape,) for k, t in tensors.items() if not k.endswith("num_batches_tracked"))
    for arch in archs:
        try:
            want = shapes_of(arch, args, channels, 224)
        except InputError:
            continue  # it does not take these arguments
        if sorted(s for k, s in want.items() if not k.endswith("num_batches_tracked")) == own:
            return NetworkShape(arch, dict(args), None)
    raise InputError(f"the shapes of its {len(own)} tensors are those of none of {', '.join(archs)}; name the network with --arch")


def _count_modules(tensors: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max((int(m[1]) for k in tensors if (m := re.match(pattern, k))), default=-1)


def _heads(width: int, args: Mapping[str, Any]) -> int:
    if "num_heads" in args:
        return int(args["num_heads"])
    if width not in USUAL_HEADS:
        raise InputError(f"shapes do not tell the number of heads of a ViT of width {width}; pass --model-arg num_heads=N")
    return USUAL_HEADS[width]


def _vit(tensors: Mapping[str, Tensor], args: Mapping[str, Any]) -> NetworkShape:
    kernel, positions = tensors["patch_embed.proj.weight"], tensors["pos_embed"]
    width, patch, depth = kernel.shape[0], kernel.shape[-1], _count_modules(tensors, r"blocks\.(\d+)\.")
    has_cls, registers = "cls_token" in tensors, tensors["reg_token"].shape[1] if "reg_token" in tensors else 0
    grid, bare = _grid(positions.shape[1], has_cls + registers)
    out: dict[str, Any] = {"num_heads": _heads(width, args)}
    scaled, clip = "blocks.0.ls1.gamma" in tensors, "norm_pre.weight" in tensors
    name = f"vit_{VIT_NAMES.get(width, '?')}_patch{patch}" + (
        "_clip_quickgelu_224" if clip else f"{'_reg4' if registers == 4 else ''}_dinov2" if scaled and patch == 14 else "_224"
    )
    if clip and "patch_embed.proj.bias" not in tensors:
        out["pre_norm"] = True
    if not timm.is_model(name):
        name = "vit_base_patch32_clip_quickgelu_224" if clip else "vit_base_patch16_224"
    out |= {"patch_size": patch, "embed_dim": width, "depth": depth}
    out |= {"init_values": 1e-5} if scaled else {}
    out |= {"reg_tokens": registers} if registers else {}
    out |= {"no_embed_class": True} if bare and (has_cls or registers) else {}
    out |= {} if has_cls else {"class_token": False, "global_pool": "avg", "fc_norm": False}
    out |= {} if "blocks.0.attn.qkv.bias" in tensors else {"qkv_bias": False}
    hidden, inner = tensors["blocks.0.mlp.fc1.weight"].shape[0], tensors["blocks.0.mlp.fc2.weight"].shape[1]
    if hidden == 2 * inner:
        out |= {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}
    out["mlp_ratio"] = math.ceil(hidden / width * 1e5) / 1e5  # timm takes the integer part of width x ratio
    if "fc_norm.weight" in tensors:
        out |= {"global_pool": "avg", "fc_norm": True}
    if "attn_pool.latent" in tensors:
        out |= {"global_pool": "map", "fc_norm": False}
    return NetworkShape(name, out | dict(args), grid * patch)


def _grid(tokens: int, prefix: int) -> tuple[int, bool]:
    """The side of the grid, and whether positions are of patches only."""
    for count, bare in ((tokens - prefix, False), (tokens, True)):
        if count > 0 and math.isqrt(count) ** 2 == count:
            return math.isqrt(count), bare
    raise InputError(f"pos_embed has {tokens} positions, no square grid with {prefix} tokens before it; only square ones are read")


def _swin(tensors: Mapping[str, Tensor], args: Mapping[str, Any]) -> NetworkShape:
    width, patch = tensors["patch_embed.proj.weight"].shape[0], tensors["patch_embed.proj.weight"].shape[-1]
    stages = _count_modules(tensors, r"layers\.(\d+)\.")
    tables = [tensors[f"layers.{i}.blocks.0.attn.relative_position_bias_table"] for i in range(stages)]
    window = (math.isqrt(tables[0].shape[0]) + 1) // 2
    own = {"embed_dim": width, "patch_size": patch, "window_size": window, "num_heads": [t.shape[1] for t in tables]}
    own["depths"] = [_count_modules(tensors, rf"layers\.{i}\.blocks\.(\d+)\.") for i in range(stages)]
    size = window * patch * 2 ** (stages - 1)
    return NetworkShape("swin_tiny_patch4_window7_224", own | dict(args), size if window != 7 else 224)


def _dinov3(tensors: Mapping[str, Tensor], args: Mapping[str, Any]) -> NetworkShape:
    width, depth = tensors["cls_token"].shape[-1], _count_modules(tensors, r"blocks\.(\d+)\.")
    name, bias = DINOV3_NAMES.get(width, "?"), "blocks.0.attn.q_bias" in tensors
    gated = "blocks.0.mlp.fc1_g.weight" in tensors
    arch = f"vit_{name}{'_plus' if gated and name == 'small' else ''}_patch16_dinov3{'_qkvb' if bias else ''}"
    if not timm.is_model(arch):
        raise InputError(f"timm has no DINOv3 network {arch} (width {width})")
    return NetworkShape(arch, {"depth": depth} | dict(args), None)


def _eva02(tensors: Mapping[str, Tensor], args: Mapping[str, Any]) -> NetworkShape:
    kernel, depth = tensors["patch_embed.proj.weight"], _count_modules(tensors, r"blocks\.(\d+)\.")
    width, patch = kernel.shape[0], kernel.shape[-1]
    grid, _ = _grid(tensors["pos_embed"].shape[1], 1)
    if width not in EVA02_NAMES:
        raise InputError(f"timm has no EVA-02 network of width {width}; known widths: {', '.join(map(str, EVA02_NAMES))}")
    own = {"patch_size": patch, "ref_feat_shape": [grid, grid], "depth": depth}
    return NetworkShape(f"eva02_{EVA02_NAMES[width]}_patch14_224", own | dict(args), grid * patch)


def _beit(tensors: Mapping[str, Tensor], args: Mapping[str, Any]) -> NetworkShape:
    kernel, depth = tensors["patch_embed.proj.weight"], _count_modules(tensors, r"blocks\.(\d+)\.")
    table = tensors["blocks.0.attn.relative_position_bias_table"]
    own: dict[str, Any] = {"embed_dim": kernel.shape[0], "depth": depth, "num_heads": table.shape[1], "patch_size": kernel.shape[-1]}
    if "blocks.0.gamma_1" not in tensors:
        own["init_values"] = 0.0  # no layer scale; timm.create_model leaves out arguments that are None
    if "pos_embed" in tensors:
        own["use_abs_pos_emb"] = True
    grid = (math.isqrt(table.shape[0] - 3) + 1) // 2  # (2 G - 1)^2 offsets and three of the class token
    return NetworkShape("beit_base_patch16_224", own | dict(args), grid * kernel.shape[-1])
