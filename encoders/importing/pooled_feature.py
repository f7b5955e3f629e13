"""The arguments with which a network gives the pooled feature that a source recommends: cls, mean, cls+mean or map.

Whether a mean is taken before or after the last norm is in the file: timm calls the norm after the mean `fc_norm`.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from encoders.importing.family_data import PooledFeature
from encoders.runtime.errors import InputError
from encoders.zoo import backbone
from encoders.zoo.network_args import CLS_AND_MEAN

NORM_ARGS: tuple[dict[str, Any], ...] = ({}, {"fc_norm": False}, {"fc_norm": True}, {"use_fc_norm": False}, {"use_fc_norm": True})


def pooling_args(
    feature: PooledFeature, arch: str, args: Mapping[str, Any], channels: int, size: int, names: Collection[str]
) -> dict[str, Any]:
    """The arguments for `feature` of the network `arch` with `args`, whose tensors have these names.

    Raises InputError for a feature that the network, or these tensors, cannot give."""
    own = {key: value for key, value in args.items() if key not in ("global_pool", "fc_norm", "use_fc_norm")}
    bare = {"global_pool": "avg"} if own.get("class_token") is False else {}
    network = _on_meta(arch, {**own, **bare}, channels, size)
    if network is None:
        return {}  # its error is raised where the network is built
    if not hasattr(network, "cls_token"):
        if feature != "mean":
            raise InputError(f"{arch} has no class token and no attention pooling, so its pooled feature cannot be {feature}; leave it out")
        return {}
    if feature in ("cls", CLS_AND_MEAN) and (network.cls_token is None or "cls_token" not in names):
        raise InputError(f"{arch} with these tensors has no class token, so its pooled feature cannot be {feature}; choose mean")
    if feature in ("cls", CLS_AND_MEAN) and "fc_norm.weight" in names and "norm.weight" not in names:
        raise InputError(
            f"the last norm of these tensors (fc_norm) is that of the mean, so the pooled feature cannot be {feature}; choose mean"
        )
    if feature == "map" and not any(name.startswith("attn_pool.") for name in names):
        raise InputError("the file has no tensors of attention pooling (attn_pool), so the pooled feature cannot be map")
    pool = {"global_pool": {"cls": "token", "mean": "avg", "map": "map", CLS_AND_MEAN: CLS_AND_MEAN}[feature]}
    return _with_norms_of(names, arch, own, pool, channels, size)


def _with_norms_of(
    names: Collection[str], arch: str, own: Mapping[str, Any], pool: Mapping[str, Any], channels: int, size: int
) -> dict[str, Any]:
    """`pool`, with the arguments by which the network has the last norms that the file has."""
    theirs = {n for n in names if n.startswith(("norm.", "fc_norm."))}
    for more in NORM_ARGS:
        network = _on_meta(arch, {**own, **pool, **more}, channels, size)
        if network is not None and {n for n in network.state_dict() if n.startswith(("norm.", "fc_norm."))} == theirs:
            return {**pool, **more}
    return dict(pool)


def _on_meta(arch: str, args: Mapping[str, Any], channels: int, size: int) -> nn.Module | None:
    """The network without values; None if it cannot be built."""
    try:
        with torch.device("meta"):
            return backbone.build_backbone(arch, args, channels, size)
    except InputError:
        return None
