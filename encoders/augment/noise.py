"""Gaussian noise: random windows of one fixed field of a million normal numbers.

A window costs a tenth of fresh numbers, and is the same on every device.
"""

from functools import cache

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from encoders.augment.device_params import DeviceParams
from encoders.augment.operation import Augmentation, DrawnParams, Draws, FloatRange, uniform_between
from encoders.runtime.arrays import Array, BoolArray
from encoders.runtime.config import Config
from encoders.runtime.device_constant import device_constant
from encoders.runtime.random import Purpose, generator

NOISE_FIELD_SIDE = 1024  # pixels a side of the field of noise


class NoiseSettings(Config):
    noise: float = Field(0.0, ge=0, le=1, description="probability of Gaussian noise")
    noise_std: FloatRange = Field((0.0, 0.05), description="its standard deviation in [0, 1] units, uniform")


class Noise(Augmentation[NoiseSettings]):
    """noise: (B,) standard deviation.  noise_at: (B, 3, 2) position of each channel's window in the field, as shares."""

    settings = NoiseSettings
    params = ("noise", "noise_at")

    def draw(self, cfg: NoiseSettings, draws: Draws) -> DrawnParams:
        if not cfg.noise:
            return {}
        u = draws.lanes(Purpose.NOISE, 8)
        std = np.where(u[0] < cfg.noise, uniform_between(u[1], *cfg.noise_std), 0.0)
        return {"noise": std, "noise_at": u[2:].T.reshape(-1, 3, 2)}

    def changed_rows(self, params: DrawnParams) -> BoolArray:
        return params["noise"] > 0

    def apply(self, views: Tensor, params: DrawnParams) -> None:
        add_noise(views, params["noise"], params["noise_at"])

    def apply_on_device(self, views: Tensor, params: DeviceParams) -> Tensor:
        c, h, w = views.shape[1:]
        side = max(NOISE_FIELD_SIDE, h, w)
        windows = device_constant(_noise_numbers, side, like=views).unfold(0, h, 1).unfold(1, w, 1)  # a view: all windows of the field
        corner = (params.exact("noise_at")[:, : 2 * c] * windows.shape[0]).long()  # down, right of each channel; in float64, as on a CPU
        noise = windows[corner[:, ::2], corner[:, 1::2]]  # (B, C, H, W); views are square, so that both can move equally far
        return views.addcmul_(noise, params.single("noise")).clamp_(0, 1)


def add_noise(images: Tensor, std: Array, offsets: Array) -> Tensor:
    """Noise of standard deviation `std` (B,), in place.  offsets: (B, 3, 2) positions of the windows in the field, one per channel."""
    for b in np.flatnonzero(std):
        for c in range(images.shape[1]):
            images[b, c].add_(noise_window(images[b, c], offsets[b, c]), alpha=float(std[b]))
    return images.clamp_(0, 1)


def noise_window(like: Tensor, offsets: Array) -> Tensor:
    """A window of the field of noise as large as `like` (H, W).  offsets: (2,) shares of the distance it can move down and right."""
    h, w = like.shape
    field = _noise_field(max(NOISE_FIELD_SIDE, h, w), like.device)
    top, left = int(offsets[0] * (field.shape[0] - h + 1)), int(offsets[1] * (field.shape[1] - w + 1))
    return field[top : top + h, left : left + w]


@cache
def _noise_field(side: int, device: torch.device) -> Tensor:
    return torch.from_numpy(_noise_numbers(side)).to(device)


@cache
def _noise_numbers(side: int) -> Array:
    return generator(0, Purpose.NOISE, side).standard_normal((side, side), dtype=np.float32)
