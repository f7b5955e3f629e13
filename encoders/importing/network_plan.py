"""The network that a file's tensors are loaded into, from the file, its family and what was said about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from encoders.importing.families import FamilyMatch
from encoders.importing.import_settings import ImportSettings
from encoders.importing.network_shapes import NetworkShape, infer_network
from encoders.importing.pooled_feature import pooling_args
from encoders.runtime.errors import InputError
from encoders.zoo import backbone

DEFAULT_SIZE = 224
KEPT_SHAPE_ARGS = ("embed_dim", "depth", "patch_size", "num_heads", "mlp_ratio")  # left out where the name says them


@dataclass(frozen=True)
class NetworkPlan:
    """A network, the side of its input, and what its tensors say where a name was given (None: they do not tell)."""

    arch: str
    model_args: dict[str, Any]
    channels: int
    size: int
    by_shapes: NetworkShape | None
    notes: tuple[str, ...]

    def advice(self) -> str:
        """What to do if the tensors do not fit."""
        if self.by_shapes is None:
            return "Check --arch, --model-arg and --channels"
        arch, args = self.by_shapes.arch, tidy_args(self.by_shapes, self.channels)
        text = "".join(f" --model-arg {key}={_as_option(value)}" for key, value in args.items())
        hint = ""
        with torch.device("meta"):
            own = _patch_of(backbone.build_backbone(self.arch, self.model_args, self.channels, self.size))
        if own != args.get("patch_size", _patch_of_shape(self.by_shapes)) and own is not None:
            hint = "; --resample resamples its patch kernels, and the network is then another one than its source"
        return f"By its shapes the file is --arch {arch}{text}{hint}. Tensors that belong to no network are left out with --drop EXPRESSION"


def plan_network(match: FamilyMatch, settings: ImportSettings) -> NetworkPlan:
    """Raises InputError if the file does not tell its network and none was named, and for a pooled feature that it cannot give."""
    tensors, family = match.renamed.tensors, match.family
    channels = settings.channels or stem_channels(tensors) or family.pixels.get("channels", 3)
    args = {**match.layout_args, **settings.model_args}
    notes = [
        f"{key}={value} (of {family.title}; the tensors do not show it)"
        for key, value in match.layout_args.items()
        if key not in settings.model_args
    ]
    by_name = settings.arch is not None  # then shapes are only for the advice, and say nothing but what the file says
    shape = _infer(match, match.layout_args if by_name else args, channels, must=not by_name)
    if settings.arch is not None:
        arch = settings.arch
    else:
        assert shape is not None, "inferred or raised"
        arch, args = shape.arch, tidy_args(shape, channels)
        args |= {key: value for key, value in settings.model_args.items() if key not in args}
    size = settings.size or (shape.size if shape else None) or family.pixels.get("size") or DEFAULT_SIZE
    feature = settings.feature or family.feature
    if feature is not None and "global_pool" not in settings.model_args:
        try:
            args |= pooling_args(feature, arch, args, channels, size, tensors)
        except InputError:
            if settings.feature is not None:
                raise
    return NetworkPlan(arch, args, channels, size, shape, tuple(notes))


def _infer(match: FamilyMatch, args: Mapping[str, Any], channels: int, must: bool) -> NetworkShape | None:
    if not match.rule.network and not must:
        return None
    try:
        return infer_network(match.rule.network, match.renamed.tensors, args, channels)
    except InputError:
        if must:
            raise
    except (LookupError, ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        if must:
            raise InputError(
                f"the shapes of the file's tensors do not tell their network ({type(error).__name__}: {error}); name it with --arch"
            ) from error
    return None


def tidy_args(shape: NetworkShape, channels: int) -> dict[str, Any]:
    """The arguments of a network without those that its name has already."""
    default = _default_shape(shape.arch, channels)
    return {key: value for key, value in shape.model_args.items() if key not in KEPT_SHAPE_ARGS or default.get(key) != value}


@cache
def _default_shape(arch: str, channels: int) -> dict[str, int | None]:
    """The arguments of KEPT_SHAPE_ARGS that a network is built with if none are given."""
    with torch.device("meta"):
        own = backbone.build_backbone(arch, {}, channels)
    blocks = getattr(own, "blocks", None)
    out = {"embed_dim": getattr(own, "embed_dim", None), "patch_size": _patch_of(own)}
    if blocks is not None and len(blocks):
        out |= {"depth": len(blocks), "num_heads": getattr(getattr(blocks[0], "attn", None), "num_heads", None)}
        hidden = getattr(getattr(getattr(blocks[0], "mlp", None), "fc1", None), "out_features", 0)
        out |= {"mlp_ratio": hidden // out["embed_dim"] if out["embed_dim"] and hidden % out["embed_dim"] == 0 else None}
    return out


def stem_channels(tensors: Mapping[str, Tensor]) -> int | None:
    """Input channels of the first convolution in the file, if they are 1 or 3."""
    first = next((value for value in tensors.values() if value.ndim == 4), None)
    return int(first.shape[1]) if first is not None and first.shape[1] in (1, 3) else None


def _patch_of(network: object) -> int | None:
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    return int(patch[0]) if isinstance(patch, tuple | list) else patch


def _patch_of_shape(shape: NetworkShape) -> int | None:
    patch = shape.model_args.get("patch_size")
    return int(patch) if patch is not None else None


def _as_option(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).replace(" ", "")
