"""timm networks without a classifier: built by name, pooled and token features.

Shapes: B images, C channels, H x W pixels, N tokens (patches, or cells of a CNN's last map), D width.
"""

from collections.abc import Mapping
from typing import Any

import timm
import torch
from einops import rearrange
from torch import Tensor, nn

from encoders.runtime.errors import InputError, unknown_name_error


def build_backbone(
    arch: str,
    model_args: Mapping[str, Any] | None = None,
    channels: int = 3,
    size: int = 224,
    drop_path: float = 0.0,
    seed: int | None = None,
) -> nn.Module:
    """The timm network `arch` with fresh weights, no classifier, in training mode.

    size: side of the input in pixels; only networks with position embeddings depend on it.  seed: makes the weights a function of it
    and leaves the caller's random state alone.  Raises InputError for an unknown name (nearest ones given) and for arguments that the
    network does not take."""
    validate_arch(arch)
    args = {**(model_args or {}), "in_chans": channels, "num_classes": 0}
    if drop_path:
        args["drop_path_rate"] = drop_path
    if has_fixed_size(arch):
        args.setdefault("img_size", size)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        try:
            model = timm.create_model(arch, pretrained=False, **args)
        except (TypeError, ValueError, AssertionError) as wrong:
            given = ", ".join(f"{k}={v!r}" for k, v in args.items() if k != "num_classes")
            raise InputError(f"{arch} cannot be built with {given}: {wrong}") from wrong
    _check_patches_fit(model, arch, size)
    return model


def validate_arch(arch: str) -> str:
    """`arch`, if timm knows a network of that name. Raises InputError with the nearest names."""
    bare = arch.split(".")[0]
    if timm.is_model(bare) and bare != arch:
        raise InputError(f"no network (timm architecture) called {arch!r}: the weight tag is not part of it; write {bare}")
    if not timm.is_model(arch):
        raise unknown_name_error("network (timm architecture)", arch, timm.list_models(), "`timm.list_models()` lists all.")
    return arch


def has_fixed_size(arch: str) -> bool:
    """Whether the network is built for one input size (ViT, Swin, ...), so that the size is an argument of its constructor."""
    return bool(getattr(timm.get_pretrained_cfg(arch, allow_unregistered=True), "fixed_input_size", False))


def _check_patches_fit(model: nn.Module, arch: str, size: int) -> None:
    """Raises InputError when patches do not tile the image: timm would drop the rest without a word."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None) or 1
    step = patch if isinstance(patch, int) else patch[0]
    if size % step:
        fit = f"{size // step * step} or {(size // step + 1) * step}" if size > step else str(step)
        raise InputError(f"{arch} cuts images into patches of {step} pixels, and {size} is no multiple of it; choose a size of {fit}")


def pooled_features(model: nn.Module, x: Tensor) -> Tensor:
    """(B, D) what the network's own pooling gives: class token, mean of patches or mean of the last map, as it was built."""
    features = model(x)
    if features.ndim != 2:
        raise InputError(f"the network pools to {tuple(features.shape[1:])}, expected one vector an image; do not set global_pool to ''")
    return features


def token_features(model: nn.Module, x: Tensor) -> Tensor:
    """(B, N, D) features before pooling, row by row: patches of a ViT without class and register tokens, cells of a CNN's last map."""
    features = model.forward_features(x)  # type: ignore[operator]
    if features.ndim == 3:
        return features[:, getattr(model, "num_prefix_tokens", 0) :]
    if str(getattr(model, "output_fmt", "NCHW")).upper().endswith("NHWC"):
        return rearrange(features, "b h w d -> b (h w) d")
    return rearrange(features, "b d h w -> b (h w) d")


def feature_dim(model: nn.Module) -> int:
    """D, the width of `pooled`."""
    return int(getattr(model, "head_hidden_size", None) or model.num_features)  # type: ignore[arg-type]
