"""Canaries: an encoder's output for fixed synthetic images, which reveals a changed network, card or library.

canary          images in, features out: of network and preprocessing together
network_canary  prepared tensors in, features out: of the network alone
pixel_canary    images in, values of the prepared tensors out: of the preprocessing alone

Loading can succeed and still give another network (MobileNetV2 with and without `pad_type=same` has the same tensors). The canary of the
two differs.
"""

import numpy as np
import torch
from einops import rearrange, repeat
from numpy.typing import NDArray
from torch import Tensor, nn

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
    features = cpu_features(model, prepare_input(canary_images(card.preprocess.channels), card.preprocess))  # (3, D)
    if not torch.isfinite(features).all():
        raise InputError(f"the features of {card.name} for the canary images are not finite: its weights are damaged or training diverged")
    return _round_values(features[:, :CANARY_FEATURES])


def network_tensors(channels: int, size: int) -> Tensor:
    """(3, K, S, S) fixed tensors of about zero mean and unit variance, which no card changes: noise, a grating, and noise in blocks."""
    y, x = np.mgrid[0:size, 0:size] / size
    noise = 2 * np.sqrt(3) * (uniform(1, Purpose.MODEL, np.arange(size), n=size * channels).reshape(size, channels, size) - 0.5)
    grating = np.sqrt(2) * np.sin(2 * np.pi * (3 + 9 * x) * (x + 0.5 * y))
    coarse = 2 * np.sqrt(3) * (uniform(2, Purpose.MODEL, np.arange(8), n=8) - 0.5)
    blocks = coarse[(8 * y).astype(int), (8 * x).astype(int)]
    tint = np.linspace(1.0, 0.7, channels).reshape(channels, 1, 1)
    return torch.from_numpy(np.stack([noise.transpose(1, 0, 2), grating * tint, blocks * tint]).astype(np.float32))


def compute_network_canary(model: nn.Module, card: Card) -> list[float]:
    """Features of each of `network_tensors`, concatenated; CPU, float32. Of the card only size and channels have an effect.

    The features are taken evenly over the width, so that each of several vectors side by side (class token, mean) is among them."""
    features = cpu_features(model, network_tensors(card.preprocess.channels, card.preprocess.size))  # (3, D)
    taken = np.linspace(0, features.shape[1] - 1, min(CANARY_FEATURES, features.shape[1])).round().astype(int)
    return _round_values(features[:, taken])


def compute_pixel_canary(card: Card) -> list[float]:
    """The mean and nine values of each channel of the prepared canary images, on a grid that reaches the corners."""
    x = prepare_input(canary_images(card.preprocess.channels), card.preprocess)  # (3, K, S, S)
    at = [0, x.shape[-1] // 2, x.shape[-1] - 1]
    grid = rearrange(x[:, :, at][..., at], "b k i j -> b k (i j)")
    return _round_values(torch.cat([x.mean((2, 3)).unsqueeze(2), grid], dim=2))


def cpu_features(model: nn.Module, x: Tensor) -> Tensor:
    """(B, D) pooled features of prepared tensors, on the CPU, in evaluation mode; `model` stays on its device and in its mode."""
    parameter = next(model.parameters(), None)
    was_training, device = model.training, torch.device("cpu") if parameter is None else parameter.device
    model.cpu().eval()
    try:
        with torch.inference_mode():
            return backbone.pooled_features(model, x)
    finally:
        model.to(device).train(was_training)


def _round_values(values: Tensor) -> list[float]:
    return [float(f"{v:.6g}") for v in values.flatten().tolist()]


def canary_distance(expected: list[float], actual: list[float]) -> float:
    """The largest difference, relative to the largest expected value; infinite for canaries of different lengths."""
    if len(expected) != len(actual):
        return float("inf")
    a, b = np.asarray(expected), np.asarray(actual)
    return float(np.abs(a - b).max() / max(float(np.abs(a).max()), 1e-12))  # a dead network outputs 0 for everything
