"""The canary: an encoder's output for fixed synthetic images, which reveals a changed network, card or library.

Loading can succeed and still give another network (MobileNetV2 with and without `pad_type=same` has the same tensors). The canary of the
two differs.
"""

import numpy as np
import torch
from einops import repeat
from numpy.typing import NDArray
from torch import nn

from encoders.runtime.errors import InputError
from encoders.runtime.random import Purpose, uniform
from encoders.zoo import backbone
from encoders.zoo.card import Card
from encoders.zoo.preprocess import prepare_input

CANARY_HEIGHT, CANARY_WIDTH = 112, 136  # neither square nor a card's size, so that the resize rule has an effect
CANARY_FEATURES = 32  # features kept of each image: enough to detect a change, few enough to read
CANARY_TOLERANCE = 1e-3  # relative to the largest value of the canary: above float32 differences of processors, below any real change


def canary_images(channels: int = 3) -> NDArray[np.float32]:
    """(3, H, W, C) in [0, 1]: a tilted ramp with a disc, a grating of increasing frequency, smooth noise with an edge."""
    y, x = np.mgrid[0:CANARY_HEIGHT, 0:CANARY_WIDTH] / np.array([CANARY_HEIGHT, CANARY_WIDTH]).reshape(2, 1, 1)
    disc = 0.35 * ((x - 0.35) ** 2 + (y - 0.6) ** 2 < 0.05)
    ramp = 0.1 + 0.3 * x + 0.2 * y + disc
    grating = 0.5 + 0.4 * np.sin(2 * np.pi * (2 + 14 * x) * x) * np.cos(2 * np.pi * 3 * y)
    coarse = uniform(0, Purpose.MODEL, np.arange(8), n=8)  # (8, 8)
    noise = np.kron(coarse, np.ones((CANARY_HEIGHT // 8, CANARY_WIDTH // 8))) * (0.4 + 0.6 * (x > y))
    gray = np.stack([ramp, grating, noise])  # (3, H, W)
    tint = np.ones(1) if channels == 1 else np.array([1.0, 0.8, 0.9])
    return np.asarray(repeat(gray, "b h w -> b h w c", c=channels) * tint, np.float32)


def compute_canary(model: nn.Module, card: Card) -> list[float]:
    """The first features of each canary image, concatenated; CPU, float32. Raises InputError when one is NaN or inf."""
    was_training, device = model.training, next(model.parameters()).device
    model.cpu().eval()
    try:
        with torch.inference_mode():
            features = backbone.pooled_features(model, prepare_input(canary_images(card.preprocess.channels), card.preprocess))  # (3, D)
    finally:
        model.to(device).train(was_training)
    if not torch.isfinite(features).all():
        raise InputError(f"the features of {card.name} for the canary images are not finite: its weights are damaged or training diverged")
    return [float(f"{v:.6g}") for v in features[:, :CANARY_FEATURES].flatten().tolist()]


def canary_distance(expected: list[float], actual: list[float]) -> float:
    """The largest difference, relative to the largest expected value; infinite for canaries of different lengths."""
    if len(expected) != len(actual):
        return float("inf")
    a, b = np.asarray(expected), np.asarray(actual)
    return float(np.abs(a - b).max() / max(float(np.abs(a).max()), 1e-12))  # a dead network outputs 0 for everything
