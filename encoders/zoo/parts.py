"""Encoders made of parts: the pooled features of several encoders, each L2-normalised, concatenated.

Every part keeps its own preprocessing. `JoinedNetwork` is the network that fine-tuning trains: all parts, with one input for each.

Shapes: B images, K channels, S side of an input, D_i width of part i, D their sum.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from encoders.runtime.arrays import Array
from encoders.runtime.config import json_digest
from encoders.runtime.errors import InputError
from encoders.runtime.precision_names import FeaturePrecision
from encoders.zoo import backbone
from encoders.zoo.card import Card, Preprocess
from encoders.zoo.encoder import Encoder, EncoderInput, FeatureKind
from encoders.zoo.location import EncoderLocation
from encoders.zoo.preprocess import normalise_input, resize_antialiased
from encoders.zoo.stages import StageFeatures, inner_network

LEAST_NORM = 1e-12  # of a row: the features of a dead network are 0, and stay 0


class JoinedNetwork(nn.Module):
    """Maps one prepared input per part, or images (B, K, S, S) in [0, 1], to features (B, D), L2-normalised by part."""

    def __init__(self, networks: Sequence[nn.Module], preprocesses: Sequence[Preprocess]):
        super().__init__()
        self.parts, self.preprocesses = nn.ModuleList(networks), list(preprocesses)

    def forward(self, x: EncoderInput) -> Tensor:
        inputs = self.part_inputs(x) if isinstance(x, Tensor) else x
        features = (backbone.pooled_features(network, own) for network, own in zip(self.parts, inputs, strict=True))
        return torch.cat([F.normalize(f, dim=1) for f in features], dim=1)

    def part_inputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """The input of each part, from square images in [0, 1] that are already cropped, as augmentation returns them."""
        resized = (resize_antialiased(x, p.size, p.size, p.interpolation) for p in self.preprocesses)
        return tuple(
            normalise_input(own, p).contiguous(memory_format=torch.channels_last) for own, p in zip(resized, self.preprocesses, strict=True)
        )


def list_networks(model: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """The timm networks in a model, each with the prefix of its parameters' names: one for each part."""
    if isinstance(model, JoinedNetwork):
        return [pair for i, part in enumerate(model.parts) for pair in list_networks(part, f"{prefix}parts.{i}.")]
    return [(f"{prefix}network." if isinstance(model, StageFeatures) else prefix, inner_network(model))]


def count_normalised(card: Card) -> int:
    """The number of vectors of norm 1 that the features consist of; 0 if they are not normalised."""
    return len(card.parts or card.stages or ())


class JoinedEncoder(Encoder):
    """An encoder made of parts. Its `encode` equals the concatenation of the parts' own features, each L2-normalised, bit for bit."""

    def __init__(self, card: Card, parts: Sequence[Encoder], device: str | torch.device = "cpu"):
        """Raises InputError if two parts give the same features."""
        for a, b in combinations(parts, 2):
            if a.sha256 == b.sha256:
                raise InputError(f"{a.card.name} and {b.card.name} are the same encoder under two names; {card.name} needs different parts")
        super().__init__(card, JoinedNetwork([p.model for p in parts], [p.card.preprocess for p in parts]), device)
        self.parts = tuple(parts)

    def with_precision(self, precision: FeaturePrecision) -> Self:
        """This encoder, each part set to compute in `precision`."""
        self.parts = tuple(part.with_precision(precision) for part in self.parts)
        return super().with_precision(precision)

    @property
    def sha256(self) -> str:
        """SHA-256 of the parts in their order."""
        return json_digest({"parts": [part.sha256 for part in self.parts]}, 64)

    def encode(self, images: Array | Tensor, kind: FeatureKind = "pooled", batch: int = 64) -> Tensor:
        """(B, D) features, as `Encoder.encode`. Raises InputError for tokens, whose numbers differ between parts."""
        require_pooled(self.card.name, kind)
        rows = [part.encode(images, kind, batch).cpu().numpy() for part in self.parts]
        return torch.from_numpy(join_features(rows)).to(self.device)

    def prepare(self, images: Tensor | Array) -> EncoderInput:
        """One prepared input per part."""
        inputs = [part.prepare(images) for part in self.parts]
        return tuple(x for x in inputs if isinstance(x, Tensor))

    def forward(self, x: EncoderInput, kind: FeatureKind = "pooled") -> Tensor:
        """(B, D) features of prepared inputs, one per part."""
        require_pooled(self.card.name, kind)
        rows = [part.forward(own, kind).cpu().numpy() for part, own in zip(self.parts, x, strict=True)]
        return torch.from_numpy(join_features(rows)).to(self.device)


def require_pooled(name: str, kind: FeatureKind) -> None:
    """Raises InputError for another kind of features than pooled ones."""
    if kind != "pooled":
        raise InputError(f"{name} has only pooled features, and {kind!r} features were asked for: ask one network for them")


def join_features(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(B, D): the rows of every part (B, D_i) divided by their Euclidean norm, side by side."""
    return np.concatenate([l2_normalise(x) for x in parts], axis=1)


def l2_normalise(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, D) rows of norm 1; a row of zeros stays zero."""
    unit: NDArray[np.float32] = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(LEAST_NORM))
    return unit


def join_locations(locations: Sequence[EncoderLocation]) -> EncoderLocation:
    """The encoder made of these. Parts that have parts themselves are replaced by theirs. Raises InputError if a part comes twice."""
    flat = [part for location in locations for part in (location.parts if location.origin == "parts" else (location,))]
    names = [part.card.name for part in flat]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{'+'.join(names)} has the part {twice} more than once; name different encoders")
    flat = [part._replace(card=part.card.replace(head=None)) if part.card.head else part for part in flat]  # features alone are joined
    card = join_cards("+".join(names), [part.card for part in flat])
    return EncoderLocation(card, card, "parts", parts=tuple(flat))


def join_cards(name: str, cards: Sequence[Card]) -> Card:
    """The card of the encoder made of these."""
    modalities, licences = ({getattr(card, field) for card in cards} for field in ("modality", "licence"))
    return Card(
        name=name,
        arch="+".join(card.arch for card in cards),
        dim=sum(card.dim for card in cards),
        preprocess=common_preprocess([card.preprocess for card in cards]),
        parts=tuple(cards),
        modality=next(iter(modalities - {None}), None) if len(modalities - {None}) == 1 else None,
        licence=licences.pop() if len(licences) == 1 else "; ".join(f"{card.name}: {card.licence}" for card in cards),
        lineage={"parts": [card.name for card in cards]},
        source="parts",
    )


def common_preprocess(each: Sequence[Preprocess]) -> Preprocess:
    """Images in [0, 1] of the largest size and the most channels of the parts: what fine-tuning augments, once for all of them."""
    channels = max(p.channels for p in each)
    first = max(each, key=lambda p: p.size)
    return first.model_copy(update={"channels": channels, "mean": (0.0,) * channels, "std": (1.0,) * channels})
