"""The encoder `pixels`: the floor of every comparison. Statistics of the stored image, without a network.

An encoder that is not better than these recognises nothing that a histogram does not show. Where they do well, images of the classes
differ in their acquisition: brightness, contrast, collimation, stain.

Features of an image, 294 numbers, from its luminance Y (BT.601) in [0, 1]: the 32-bin histogram (fractions), mean, standard deviation, and
a thumbnail of 16 x 16 averages; then mean and standard deviation of R - Y and of B - Y, which are 0 for a gray image. The image is the
stored one: it is not resized to the input of a network.

Shapes: B images, C channels, H x W pixels.
"""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.runtime.arrays import Array
from encoders.runtime.config import json_digest
from encoders.runtime.errors import InputError
from encoders.runtime.precision_names import FeaturePrecision
from encoders.zoo.card import Card, Preprocess
from encoders.zoo.encoder import Encoder, EncoderInput, FeatureKind
from encoders.zoo.names import PIXELS, STORED_FEATURES, EncoderName
from encoders.zoo.preprocess import adapt_channels, to_channels_first

VERSION = 1  # of the features: increase it when `pixel_features` would give other values
BINS, THUMBNAIL = 32, 16
PIXELS_DIM = BINS + 2 + THUMBNAIL**2 + 4


class PixelsEncoder(Encoder):
    """An encoder without weights: `prepare` computes the features, and `forward` returns them."""

    def __init__(self, device: str | torch.device = "cpu"):
        super().__init__(pixels_card(), nn.Identity(), device)

    def with_precision(self, precision: FeaturePrecision) -> Self:
        """This encoder: there is no network to compute in another precision."""
        return self

    @property
    def sha256(self) -> str:
        """SHA-256 of the name and version of the features."""
        return json_digest({"pixels": VERSION}, 64)

    def prepare(self, images: Tensor | Array) -> Tensor:
        """(B, 294) features."""
        return pixel_features(to_channels_first(images))

    def forward(self, x: EncoderInput, kind: FeatureKind = "pooled") -> Tensor:
        """x: (B, 294), what `prepare` returns. Raises InputError for tokens."""
        if kind != "pooled":
            raise InputError(f"{PIXELS} has no tokens; ask for pooled features")
        assert isinstance(x, Tensor)
        return x


def pixel_features(images: Tensor) -> Tensor:
    """(B, 294) float32.  images: (B, C, H, W) in [0, 1] with C = 1 or 3, of any size."""
    x = images.float()
    gray = adapt_channels(x, 1)  # (B, 1, H, W)
    flat = gray.flatten(1)  # (B, H * W)
    place = (flat * BINS).long().clamp(0, BINS - 1)
    ones = torch.full_like(flat, 1.0 / flat.shape[1], dtype=torch.float64)  # float64: a sum of a million fractions
    histogram = torch.zeros(len(x), BINS, dtype=torch.float64, device=x.device).scatter_add_(1, place, ones)
    thumbnail = F.adaptive_avg_pool2d(gray, THUMBNAIL).flatten(1)
    colour = (x[:, [0, 2]] - gray).flatten(2) if x.shape[1] == 3 else x.new_zeros(len(x), 2, 1)  # (B, 2, H * W)
    # Gray stored as RGB: luminance rounds to another float, and the colour of a gray image is exactly 0.
    colour = torch.where(colour.abs() < 1e-6, torch.zeros_like(colour), colour)
    columns = [histogram, *_mean_and_std(flat.unsqueeze(1)), thumbnail, *_mean_and_std(colour)]
    return torch.cat([column.float() for column in columns], dim=1)


def _mean_and_std(x: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C) each, of x (B, C, n), in float64."""
    x = x.double()
    return x.mean(2), x.std(2, correction=0)


def pixels_card() -> Card:
    """The card of `pixels`."""
    return Card(
        name=PIXELS,
        arch=PIXELS,
        dim=PIXELS_DIM,
        preprocess=Preprocess(size=THUMBNAIL, resize="squash", interpolation="bilinear", mean=(0.0,) * 3, std=(1.0,) * 3),
        method=PIXELS,
        steps=0,
        lineage={"init": None, "version": VERSION},
        licence="Apache-2.0",
        source=PIXELS,
    )


def refuse_options(name: EncoderName) -> None:
    """Raises InputError for `pixels` with options."""
    if str(name) != PIXELS:
        raise InputError(f"{name} is not possible: {PIXELS} has no options; write {PIXELS}")


def has_network(card: Card) -> bool:
    """Whether the encoder, or each of its parts, has a network that can be trained."""
    return all(part.source not in (PIXELS, STORED_FEATURES) for part in card.parts or (card,))
