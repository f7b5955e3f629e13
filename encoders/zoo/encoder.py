"""An encoder: a network and its card, from images to features."""

from typing import Literal, Self, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from encoders.runtime.arithmetic import use_precision
from encoders.runtime.arrays import Array
from encoders.runtime.config import json_digest
from encoders.runtime.errors import InputError
from encoders.runtime.precision_names import FeaturePrecision
from encoders.zoo import backbone, weights
from encoders.zoo.card import Card
from encoders.zoo.preprocess import prepare_input, to_channels_first
from encoders.zoo.stages import inner_network

FeatureKind = Literal["pooled", "tokens"]
EncoderInput: TypeAlias = Tensor | tuple[Tensor, ...]  # prepared images (B, K, S, S); with parts, those of each part
DTYPE_MAX = {"uint8": 255.0, "uint16": 65535.0}


class Encoder:
    """`encode(images)` returns features with the card's preprocessing, always in evaluation mode and as float32.

    `parts` are the encoders that it is made of (`encoders.zoo.parts`); () for an encoder of one network. `precision` is the arithmetic of
    the network; the weights stay float32 in both."""

    parts: "tuple[Encoder, ...]" = ()
    precision: FeaturePrecision = "fp32"

    def __init__(self, card: Card, model: nn.Module, device: str | torch.device = "cpu"):
        self.card, self.device = card, torch.device(device)
        self.model = model.to(self.device).float().to(memory_format=torch.channels_last).eval()  # convolutions run 25 % faster
        self.report: weights.LoadReport | None = None  # which tensors of the weight file were used; None for random weights
        self._sha256: str | None = None

    def __repr__(self) -> str:
        p = self.card.preprocess
        return f"Encoder({self.card.name}: {self.card.arch}, {p.channels}x{p.size}x{p.size} -> {self.card.dim}, {self.device})"

    def with_precision(self, precision: FeaturePrecision) -> Self:
        """This encoder, set to compute features in `precision`. An encoder without a network computes the same in both."""
        self.precision = precision
        return self

    @property
    def sha256(self) -> str:
        """SHA-256 of the weights, the network and its preprocessing. Encoders with the same hash give the same features in a precision.

        It describes the weights as loaded; train a copy of `model`, not `model` itself."""
        if self._sha256 is None:
            own = weights.state_dict_sha256(inner_network(self.model).state_dict())
            network = {"weights": own, "arch": self.card.arch, "model_args": self.card.model_args}
            stages = {} if self.card.stages is None else {"stages": self.card.stages}
            self._sha256 = json_digest({**network, **stages, "preprocess": self.card.preprocess.model_dump(mode="json")}, 64)
        return self._sha256

    def encode(self, images: Array | Tensor, kind: FeatureKind = "pooled", batch: int = 64) -> Tensor:
        """(B, D) pooled features or (B, N, D) tokens, float32, on the encoder's device, computed in its precision.

        images: array (B, H, W) or (B, H, W, C), uint8, uint16 or float in [0, 1]; or tensor (B, C, H, W), float in [0, 1].
        batch: images per forward pass; it bounds memory and does not change the features.

        Raises InputError for an empty batch, another layout, type or range, and an unknown kind."""
        chunks = (to_unit_batch(images[i : i + batch]) for i in range(0, len(images), batch))
        parts = [self.forward(self.prepare(x.to(self.device)), kind) for x in chunks]
        if not parts:
            raise InputError("encode received no image; pass a batch of at least one")
        return torch.cat(parts)  # outside inference mode: an ordinary tensor, on which a head can be trained

    def prepare(self, images: Tensor | Array) -> EncoderInput:
        """The model's input of images (B, C, H, W), or of an array (B, H, W, C), in [0, 1]. On the CPU or on the device of the images."""
        return prepare_input(images, self.card.preprocess)

    def forward(self, x: EncoderInput, kind: FeatureKind = "pooled") -> Tensor:
        """Features, float32, of prepared input x: (B, K, S, S) normalised, on the encoder's device.

        Raises InputError for an unknown kind."""
        if kind not in ("pooled", "tokens"):
            raise InputError(f"unknown kind of features {kind!r}; choose pooled or tokens")
        if kind == "tokens" and self.card.stages is not None:
            raise InputError(f"{self.card.name} has the pooled features of several stages and no tokens; leave stages out of its name")
        assert isinstance(x, Tensor), "an encoder without parts has one input"
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), use_precision(self.device, self.precision):
            self.model.eval()
            features = backbone.pooled_features(self.model, x) if kind == "pooled" else backbone.token_features(self.model, x)
            return features.float()


def to_unit_batch(images: Array | Tensor) -> Tensor:
    """(B, C, H, W) float32 in [0, 1]. Raises InputError for another layout, type or range."""
    kind = str(images.dtype).removeprefix("torch.")
    if kind not in DTYPE_MAX and not kind.startswith(("float", "bfloat")):
        raise InputError(f"images are {kind}, expected uint8, uint16, or float in [0, 1]")
    if isinstance(images, np.ndarray):
        if images.ndim == 3 and images.shape[-1] == 3 and images.shape[0] > 3:
            raise InputError(f"images are {'x'.join(map(str, images.shape))}, which looks like a single colour image; pass images[None]")
        images = images[..., None] if images.ndim == 3 else images
        images = images.astype(np.float32) / np.float32(DTYPE_MAX.get(kind, 1.0))
    elif kind in DTYPE_MAX:
        images = images.float() / DTYPE_MAX[kind]
    x = to_channels_first(images)
    if kind not in DTYPE_MAX:
        low, high = float(x.min()), float(x.max())
        if not (low >= -1e-3 and high <= 1.001):  # resampling overshoots slightly; the comparison also rejects NaN
            raise InputError(
                f"float images have values from {low:.3g} to {high:.3g}, expected [0, 1]; divide by the largest possible value"
            )
    return x
