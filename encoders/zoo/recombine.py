"""Encoders that combine the weights of one encoder with the BatchNorm statistics of another of the same network.

`A~statistics=B` is A with the running statistics of B, and `A~weights=B` is A with the weights of B; both have the preprocessing of A. If A
was trained from B, the two tell what the difference between A and B is made of. Statistics are the running means and variances of every
layer that keeps them (see `batchnorm`); weights are all other tensors.
"""

import torch
from torch import Tensor, nn

from encoders.runtime.errors import InputError
from encoders.zoo.backbone import build_backbone
from encoders.zoo.batchnorm import STATISTICS, list_statistics_layers
from encoders.zoo.card import NOT_OF_VARIANTS, Card
from encoders.zoo.location import EncoderLocation
from encoders.zoo.stages import inner_network


def recombine_locations(own: EncoderLocation, what: str, other: EncoderLocation) -> EncoderLocation:
    """The place of `own` with the `what` (statistics, weights) of `other`.

    Raises InputError unless both are one network of the same architecture."""
    a, b = own.card, other.card
    name = f"{a.name}~{what}={b.name}"
    if a.parts or b.parts:
        raise InputError(f"{name}: {(a if a.parts else b).name} is made of parts; name encoders of one network")
    if (a.arch, a.preprocess.channels) != (b.arch, b.preprocess.channels):
        described = [f"{c.name} is a {c.arch} of {c.preprocess.channels} channels" for c in (a, b)]
        raise InputError(f"{name}: {described[0]}, and {described[1]}; name encoders of the same network")
    weights, statistics = (own, other) if what == "statistics" else (other, own)
    card = a.replace(
        name=name,
        method=None,
        steps=None,
        config=None,
        sha256=None,
        **NOT_OF_VARIANTS,
        probe_history=[],
        source="recombined",
        lineage={"weights_of": weights.card.name, "statistics_of": statistics.card.name},
    )
    return EncoderLocation(card, card, "recombined", parts=(weights, statistics))


def recombine_states(name: str, weights: nn.Module, statistics: nn.Module) -> dict[str, Tensor]:
    """The tensors of `weights` with the running statistics of `statistics`.

    Raises InputError for a network without running statistics, and for networks whose statistics differ in name or shape."""
    first, second = inner_network(weights), inner_network(statistics)
    if not list_statistics_layers(first):
        raise InputError(f"{name}: the network has no BatchNorm, so it has no running statistics")
    state, taken = dict(first.state_dict()), dict(second.state_dict())
    different = [key for key in state if is_statistic(key) and (key not in taken or taken[key].shape != state[key].shape)]
    if different:
        raise InputError(f"{name}: the running statistics of the two networks do not match, first {different[0]}")
    return {key: taken[key] if is_statistic(key) else value for key, value in state.items()}


def is_statistic(key: str) -> bool:
    """Whether a tensor of that name in a state dict is a running mean or variance."""
    return key.rpartition(".")[2] in STATISTICS


def is_recombined(card: Card) -> bool:
    """Whether the encoder has the weights of one and the statistics of another encoder."""
    return "statistics_of" in card.lineage


def has_batchnorm(card: Card) -> bool:
    """Whether the card's network keeps running statistics."""
    with torch.device("meta"):
        return bool(list_statistics_layers(build_backbone(card.arch, card.model_args, card.preprocess.channels, card.preprocess.size)))
