"""Gaussian blur, cut at three standard deviations, the image mirrored at its border."""

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from encoders.augment.operation import Augmentation, DrawnParams, Draws, FloatRange, broadcast_per_image, uniform_between
from encoders.runtime.arrays import Array, BoolArray
from encoders.runtime.config import Config
from encoders.runtime.random import Purpose


class BlurSettings(Config):
    blur: float = Field(0.0, ge=0, le=1, description="probability of a Gaussian blur")
    blur_sigma: FloatRange = Field((0.1, 2.0), description="its standard deviation in view pixels, uniform; cut at three of them")


class Blur(Augmentation[BlurSettings]):
    """blur: (B,) standard deviation in pixels."""

    settings = BlurSettings
    params = ("blur",)
    one_row_at_a_time = True  # the number of taps grows with the row's own sigma

    def draw(self, cfg: BlurSettings, draws: Draws) -> DrawnParams:
        if not cfg.blur:
            return {}
        u = draws.lanes(Purpose.BLUR, 2)
        return {"blur": np.where(u[0] < cfg.blur, uniform_between(u[1], *cfg.blur_sigma), 0.0)}

    def changed_rows(self, params: DrawnParams) -> BoolArray:
        return params["blur"] > 0

    def apply(self, views: Tensor, params: DrawnParams) -> None:
        gaussian_blur(views, params["blur"])


def gaussian_blur(images: Tensor, sigma: Array) -> Tensor:
    """A Gaussian of `sigma` pixels (B,), in place: one tap at a time, rows then columns."""
    reach = int(min(np.ceil(3 * sigma.max()), min(images.shape[2:]) - 1))
    if reach < 1:
        return images
    taps = np.exp(-0.5 * (np.arange(reach + 1) / sigma[:, None]) ** 2) * (np.arange(reach + 1) <= np.ceil(3 * sigma)[:, None])
    taps /= taps[:, :1] + 2 * taps[:, 1:].sum(1, keepdims=True)  # (B, 1 + reach)
    for axis in (2, 3):
        pad = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
        padded, length = F.pad(images, pad, mode="reflect"), images.shape[axis]
        torch.mul(padded.narrow(axis, reach, length), broadcast_per_image(taps[:, 0], images), out=images)
        for t in range(1, reach + 1):
            for side in (reach - t, reach + t):
                _add_weighted(images, padded.narrow(axis, side, length), taps[:, t])
    return images


def _add_weighted(images: Tensor, other: Tensor, weight: Array) -> None:
    if len(weight) == 1:
        images.add_(other, alpha=float(weight[0]))
    else:
        images.addcmul_(other, broadcast_per_image(weight, images))
