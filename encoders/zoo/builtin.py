"""Encoders that need no file from the user: `imagenet_<arch>` (timm's ImageNet weights), `timm_<arch>.<tag>` (any timm weights) and
`random_<arch>`.

Their cards are derived from timm's own record of each weight tag: mean, std, size, interpolation and crop differ between tags.
`random_` networks have mean 0.5 and std 0.25 in every channel, the network's usual size, and the initialisation timm trains from
(in a ResNet the last normalisation of each block starts at zero, so its features are those of the stem and the shortcuts).
"""

from collections.abc import Mapping
from typing import NamedTuple

import timm
from timm.models import PretrainedCfg, get_arch_pretrained_cfgs

from encoders.runtime.config import validate_config
from encoders.runtime.errors import unknown_name_error
from encoders.runtime.json_types import Json
from encoders.zoo import backbone
from encoders.zoo.card import Card, Preprocess
from encoders.zoo.hub import WeightsUnavailable
from encoders.zoo.listing import TENSOR_NEUTRAL_ARGS, common_archs
from encoders.zoo.names import EncoderName

RESIZE_OF_CROP_MODE = {"center": "crop", "squash": "squash", "border": "pad"}  # timm's crop_mode -> Preprocess.resize
IMAGENET_TAGS = ("in1k", "in12k", "in21k", "in22k")


class HubWeights(NamedTuple):
    """Where timm's weights are on the Hugging Face hub."""

    repo: str
    filename: str


def builtin_card(name: EncoderName) -> tuple[Card, HubWeights | None]:
    """The card of a built-in encoder and the location of its weights (None for random weights).

    Raises InputError for a network or a weight tag that timm does not have."""
    family, _, arch = name.base.partition("_")
    if family == "random":
        return random_card(name, arch), None
    arch, _, tag = arch.partition(".")
    backbone.validate_arch(arch)
    tag = tag or default_tag(arch, family)
    cfg = get_arch_pretrained_cfgs(arch).get(f"{arch}.{tag}")
    if cfg is None or not cfg.hf_hub_id:
        raise unknown_name_error(f"weight tag of {arch}", tag, list_tags(arch), f"Write {family}_{arch}.<tag>.")
    card = pretrained_card(str(name), arch, cfg, name)
    return card, HubWeights(cfg.hf_hub_id, cfg.hf_hub_filename or "model.safetensors")


def list_tags(arch: str) -> list[str]:
    """The weight tags that timm has of a network: `tag` in `arch.tag`."""
    return [key.removeprefix(f"{arch}.") for key, cfg in get_arch_pretrained_cfgs(arch).items() if cfg.hf_hub_id]


def default_tag(arch: str, family: str) -> str:
    """The weight tag used when the name has none: the pinned one, or timm's first tag trained on ImageNet."""
    if arch in common_archs() and (pinned := common_archs()[arch]["tag"]):
        return pinned
    known = list_tags(arch)
    candidates = [tag for tag in known if family == "timm" or any(word in tag for word in IMAGENET_TAGS)]
    if not candidates:
        others = f"; it has timm_{arch}.{known[0]}" if known else ""
        raise WeightsUnavailable(f"timm has no ImageNet weights of {arch}{others}; random_{arch} always exists")
    return candidates[0]


def pretrained_card(title: str, arch: str, cfg: PretrainedCfg, name: EncoderName) -> Card:
    """The card of a weight tag, from timm's record of it."""
    preprocess = {
        "size": cfg.input_size[-1],
        "resize": RESIZE_OF_CROP_MODE.get(cfg.crop_mode or "center", "crop"),
        "interpolation": cfg.interpolation if cfg.interpolation in ("bilinear", "bicubic") else "bicubic",
        "crop_pct": cfg.crop_pct or 1.0,
        "channels": 3,
        "mean": cfg.mean,
        "std": cfg.std,
    }
    return Card(
        name=title,
        arch=arch,
        model_args=dict(name.model_args),
        dim=arch_feature_dim(arch, name.model_args),
        preprocess=validate_config(Preprocess, preprocess, f"timm's record of {arch}.{cfg.tag}"),
        method="supervised" if any(word in str(cfg.tag) for word in IMAGENET_TAGS) else None,
        lineage={"init": None, "weights": f"timm {arch}.{cfg.tag}"},
        licence=cfg.license or "unknown",
        source=f"hub: {cfg.hf_hub_id}",
    )


def random_card(name: EncoderName, arch: str) -> Card:
    """The card of random weights; preprocessing options come from the name, and the size defaults to the network's usual size."""
    backbone.validate_arch(arch)
    channels = name.preprocess.get("channels", 3)
    count = 1 if channels == 1 else 3
    defaults = {"size": _arch_input_size(arch), "mean": (0.5,) * count, "std": (0.25,) * count}
    return Card(
        name=str(name),
        arch=arch,
        model_args=dict(name.model_args),
        dim=arch_feature_dim(arch, name.model_args),
        preprocess=validate_config(Preprocess, {**defaults, **name.preprocess}, str(name)),
        method="random",
        steps=0,
        lineage={"init": None, "seed": name.seed},
        licence="Apache-2.0",
        source="random",
    )


def arch_feature_dim(arch: str, model_args: Mapping[str, Json]) -> int:
    """D of a network: from the table of common architectures, otherwise by building the network on the meta device."""
    if arch in common_archs() and not set(model_args) - set(TENSOR_NEUTRAL_ARGS):
        return common_archs()[arch]["dim"]
    import torch

    with torch.device("meta"):
        return backbone.feature_dim(backbone.build_backbone(arch, model_args, size=_arch_input_size(arch)))


def _arch_input_size(arch: str) -> int:
    cfg = timm.get_pretrained_cfg(arch, allow_unregistered=True)
    return int(cfg.input_size[-1]) if cfg else 224
