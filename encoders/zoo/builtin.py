"""Encoders that need no file of yours: `imagenet_<arch>` (timm's ImageNet weights), `timm_<arch>.<tag>` (any of timm's), `random_<arch>`.

Their cards are derived from timm's own record of each weight tag: mean, std, size, interpolation and crop differ between tags.
`random_` networks get 0.5 and 0.25 as mean and std of every channel, the network's usual size, and the initialisation timm trains from
(in a ResNet the last normalisation of each block starts at zero, so its features are those of stem and shortcuts).
"""

from typing import Any, NamedTuple

import timm
from timm.models import get_arch_pretrained_cfgs

from encoders.runtime.config import validate_config
from encoders.runtime.errors import unknown_name_error
from encoders.zoo import backbone
from encoders.zoo.card import Card, Preprocess
from encoders.zoo.hub import WeightsUnavailable
from encoders.zoo.listing import TENSOR_NEUTRAL_ARGS, common_archs
from encoders.zoo.names import EncoderName

RESIZE_OF_CROP_MODE = {"center": "crop", "squash": "squash", "border": "pad"}  # timm's word, ours
IMAGENET_TAGS = ("in1k", "in12k", "in21k", "in22k")


class HubWeights(NamedTuple):
    """Where timm's weights are on the hub."""

    repo: str
    filename: str


def builtin_card(name: EncoderName) -> tuple[Card, HubWeights | None]:
    """The card of a built-in encoder, and where its weights are (None: they are drawn). Raises InputError for what timm lacks."""
    family, _, arch = name.base.partition("_")
    if family == "random":
        return random_card(name, arch), None
    arch, _, tag = arch.partition(".")
    backbone.validate_arch(arch)
    tag = tag or default_tag(arch, family)
    cfg = get_arch_pretrained_cfgs(arch).get(f"{arch}.{tag}")
    if cfg is None or not cfg.hf_hub_id:
        raise unknown_name_error(f"weight tag of {arch}", tag, list_tags(arch), f"Write {family}_{arch}.<tag>.")
    whole = pretrained_card(str(name), arch, cfg, name)
    return whole, HubWeights(cfg.hf_hub_id, cfg.hf_hub_filename or "model.safetensors")


def list_tags(arch: str) -> list[str]:
    """The weight tags that timm has of a network, as `tag` of `arch.tag`."""
    return [key.removeprefix(f"{arch}.") for key, cfg in get_arch_pretrained_cfgs(arch).items() if cfg.hf_hub_id]


def default_tag(arch: str, family: str) -> str:
    """The weight tag meant when none is named: the pinned one, or timm's first that was trained on ImageNet."""
    if arch in common_archs() and common_archs()[arch].get("tag"):
        return common_archs()[arch]["tag"]
    known = list_tags(arch)
    fit = [tag for tag in known if family == "timm" or any(word in tag for word in IMAGENET_TAGS)]
    if not fit:
        others = f"; it has timm_{arch}.{known[0]}" if known else ""
        raise WeightsUnavailable(f"timm has no ImageNet weights of {arch}{others}; random_{arch} always exists")
    return fit[0]


def pretrained_card(title: str, arch: str, cfg: Any, name: EncoderName) -> Card:
    """The card of a weight tag, from timm's record of it."""
    own = {
        "size": cfg.input_size[-1],
        "resize": RESIZE_OF_CROP_MODE.get(cfg.crop_mode or "center", "crop"),
        "interpolation": cfg.interpolation if cfg.interpolation in ("bilinear", "bicubic") else "bicubic",
        "crop_pct": cfg.crop_pct or 1.0,
        "channels": 3,
        "mean": cfg.mean,
        "std": cfg.std,
    }
    preprocess = validate_config(Preprocess, own, f"timm's record of {arch}.{cfg.tag}")
    return Card(
        name=title,
        arch=arch,
        model_args=name.model_args,
        dim=arch_feature_dim(arch, name.model_args),
        preprocess=preprocess,
        method="supervised" if any(word in cfg.tag for word in IMAGENET_TAGS) else None,
        lineage={"init": None, "weights": f"timm {arch}.{cfg.tag}"},
        licence=cfg.license or "unknown",
        source=f"hub: {cfg.hf_hub_id}",
    )


def random_card(name: EncoderName, arch: str) -> Card:
    """The card of freshly drawn weights; size, channels and the rest as the name says, or the network's usual size."""
    backbone.validate_arch(arch)
    cfg = timm.get_pretrained_cfg(arch, allow_unregistered=True)
    channels = name.preprocess.get("channels", 3)
    several = channels if channels in (1, 3) else 3
    own = {"size": cfg.input_size[-1] if cfg else 224, "mean": (0.5,) * several, "std": (0.25,) * several, **name.preprocess}
    return Card(
        name=str(name),
        arch=arch,
        model_args=name.model_args,
        dim=arch_feature_dim(arch, name.model_args),
        preprocess=validate_config(Preprocess, own, str(name)),
        method="random",
        steps=0,
        lineage={"init": None, "seed": name.seed},
        licence="Apache-2.0",
        source="random",
    )


def arch_feature_dim(arch: str, model_args: dict[str, Any]) -> int:
    """D of a network, known for the usual ones, else found by building it without memory for its weights."""
    if arch in common_archs() and not set(model_args) - set(TENSOR_NEUTRAL_ARGS):
        return common_archs()[arch]["dim"]
    import torch

    with torch.device("meta"):
        return backbone.feature_dim(backbone.build_backbone(arch, model_args, size=_arch_input_size(arch)))


def _arch_input_size(arch: str) -> int:
    cfg = timm.get_pretrained_cfg(arch, allow_unregistered=True)
    return cfg.input_size[-1] if cfg else 224
