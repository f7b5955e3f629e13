"""What an encoder answers to fixed images made by code: the vector by which a changed network, card or library shows itself.

Loading can succeed and still give another network (MobileNetV2 without `pad_type=same` has the same tensors); the answer cannot.
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

CANARY_HEIGHT, CANARY_WIDTH = 112, 136  # neither square nor a card's size, so that the resize rule counts too
CANARY_FEATURES = 32  # first features of each image: enough to see a change, short enough to read
CANARY_TOLERANCE = 1e-3  # of the largest number in the canary: above float32 noise of other processors, below any change of meaning


def canary_images(channels: int = 3) -> NDArray[np.float32]:
    """(3, H, W, C) in [0, 1]: a tilted ramp with a disc, a grating that grows finer, smooth noise with an edge."""
    y, x = np.mgrid[0:CANARY_HEIGHT, 0:CANARY_WIDTH] / np.array([CANARY_HEIGHT, CANARY_WIDTH]).reshape(2, 1, 1)
    disc = 0.35 * ((x - 0.35) ** 2 + (y - 0.6) ** 2 < 0.05)
    ramp = 0.1 + 0.3 * x + 0.2 * y + disc
    grating = 0.5 + 0.4 * np.sin(2 * np.pi * (2 + 14 * x) * x) * np.cos(2 * np.pi * 3 * y)
    coarse = uniform(0, Purpose.MODEL, np.arange(8), n=8)  # (8, 8)
    noise = np.kron(coarse, np.ones((CANARY_HEIGHT // 8, CANARY_WIDTH // 8))) * (0.4 + 0.6 * (x > y))
    gray = np.stack([ramp, grating, noise])  # (3, H, W)
    tint = np.ones(1) if channels == 1 else np.array([1.0, 0.8, 0.9])
    return (repeat(gray, "b h w -> b h w c", c=channels) * tint).astype(np.float32)


def compute_canary(model: nn.Module, card: Card) -> list[float]:
    """The first features of each built-in image in turn, CPU, float32. Raises InputError when one is not finite."""
    was, device = model.training, next(model.parameters()).device
    model.cpu().eval()
    try:
        with torch.inference_mode():
            features = backbone.pooled_features(model, prepare_input(canary_images(card.preprocess.channels), card.preprocess))  # (3, D)
    finally:
        model.to(device).train(was)
    if not torch.isfinite(features).all():
        raise InputError(f"{card.name} answers the built-in images with numbers that are not finite: its weights are damaged or diverged")
    return [float(f"{v:.6g}") for v in features[:, :CANARY_FEATURES].flatten().tolist()]


def canary_distance(told: list[float], now: list[float]) -> float:
    """The largest difference, as a share of the largest number told; infinite for answers of another length."""
    if len(told) != len(now):
        return float("inf")
    a, b = np.asarray(told), np.asarray(now)
    return float(np.abs(a - b).max() / max(float(np.abs(a).max()), 1e-12))  # a dead network answers 0 to everything
