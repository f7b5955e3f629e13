"""timm networks without a classifier: built by name; pooled and token features.

Shapes: B images, C channels, H x W pixels, N tokens (patches of a ViT, or cells of a CNN's last map), D width.
"""

from collections.abc import Mapping
from typing import Any

import timm
import torch
from einops import rearrange
from torch import Tensor, nn

from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.json_types import Json
from encoders.runtime.read_errors import READ_ERRORS, describe_reason
from encoders.zoo.network_args import apply_own_args, require_bounded_args, to_timm_args
from encoders.zoo.timm_protocols import HasHeadHiddenSize, HasNumFeatures, HasOutputFormat, HasPatchSize, HasPrefixTokens, HasTokenFeatures


def build_backbone(
    arch: str,
    model_args: Mapping[str, Json] | None = None,
    channels: int = 3,
    size: int = 224,
    drop_path: float = 0.0,
    seed: int | None = None,
) -> nn.Module:
    """The timm network `arch` with random weights, no classifier, in training mode.

    size: side of the input in pixels; only networks with position embeddings depend on it.  seed: determines the weights and leaves the
    global random state unchanged.  Raises InputError for an unknown name (with the nearest names) and for arguments that the network
    does not accept."""
    validate_arch(arch)
    require_bounded_args(model_args or {})
    args: dict[str, Any] = {**to_timm_args(model_args or {}), "in_chans": channels, "num_classes": 0}
    if drop_path:
        args["drop_path_rate"] = drop_path
    if has_fixed_size(arch):
        args.setdefault("img_size", size)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        try:
            model: nn.Module = timm.create_model(arch, pretrained=False, **args)
        except InputError:
            raise
        except READ_ERRORS as error:  # what constructors raise for arguments that they do not expect, or for want of memory
            given = ", ".join(f"{k}={v!r:.60}" for k, v in args.items() if k != "num_classes")
            raise InputError(f"{arch} cannot be built with {given}: {describe_reason(error)}") from error
    _check_patches_fit(model, arch, size)
    apply_own_args(model, model_args or {})
    return model


def validate_arch(arch: str) -> str:
    """`arch`, if timm has a network of that name. Raises InputError with the nearest names."""
    bare = arch.split(".")[0]
    if timm.is_model(bare) and bare != arch:
        raise InputError(f"no network (timm architecture) called {arch!r}: the weight tag is not part of the architecture; write {bare}")
    if not timm.is_model(arch):
        raise unknown_name_error("network (timm architecture)", arch, timm.list_models(), "`timm.list_models()` lists all.")
    return arch


def has_fixed_size(arch: str) -> bool:
    """Whether the network is built for one input size (ViT, Swin, ...), so that the size is an argument of its constructor."""
    cfg = timm.get_pretrained_cfg(arch, allow_unregistered=True)
    return cfg is not None and bool(cfg.fixed_input_size)


def _check_patches_fit(model: nn.Module, arch: str, size: int) -> None:
    """Raises InputError when patches do not tile the image: timm would silently drop the remaining pixels."""
    embed = dict(model.named_children()).get("patch_embed")
    patch = (embed.patch_size if isinstance(embed, HasPatchSize) else None) or 1
    step = patch if isinstance(patch, int) else patch[0]
    if size % step:
        fit = f"{size // step * step} or {(size // step + 1) * step}" if size > step else str(step)
        raise InputError(
            f"{arch} cuts images into patches of {step} pixels, and {size} is not a multiple of {step}; choose a size of {fit}"
        )


def pooled_features(model: nn.Module, x: Tensor) -> Tensor:
    """(B, D) output of the network's own pooling: class token, mean of patches or mean of the last map, depending on the network.

    Raises InputError for a network without pooling."""
    features: Tensor = model(x)
    if features.ndim != 2:
        raise InputError(f"the network pools to {tuple(features.shape[1:])}, expected one vector per image; do not set global_pool to ''")
    return features


def token_features(model: nn.Module, x: Tensor) -> Tensor:
    """(B, N, D) features before pooling, in row-major order: patches of a ViT without class and register tokens, or cells of a CNN's
    last map."""
    assert isinstance(model, HasTokenFeatures), "every timm network has forward_features"
    features = model.forward_features(x)
    if features.ndim == 3:
        return features[:, model.num_prefix_tokens if isinstance(model, HasPrefixTokens) else 0 :]
    if isinstance(model, HasOutputFormat) and str(model.output_fmt).upper().endswith("NHWC"):
        return rearrange(features, "b h w d -> b (h w) d")
    return rearrange(features, "b d h w -> b (h w) d")


def feature_dim(model: nn.Module) -> int:
    """D, the width of `pooled_features`."""
    if isinstance(model, HasHeadHiddenSize) and model.head_hidden_size:
        return int(model.head_hidden_size)
    assert isinstance(model, HasNumFeatures), "every timm network has num_features"
    return int(model.num_features)
