"""Gaussian blur, cut at three standard deviations, the image mirrored at its border.

On a CPU by OpenCV's separable filter; on a CUDA device as one matrix per image and axis, like the resampling.

Shapes: B images, C channels, H, W pixels, S pixels of a side.
"""

import numpy as np
from pydantic import Field
from torch import Tensor

from encoders.augment.device_params import DeviceParams
from encoders.augment.opencv import cv2, planes_of
from encoders.augment.operation import Augmentation, DrawnParams, Draws, FloatRange, uniform_between
from encoders.augment.resample import multiply_axes
from encoders.runtime.arrays import Array, BoolArray
from encoders.runtime.config import Config
from encoders.runtime.device_constant import device_constant
from encoders.runtime.random import Purpose


class BlurSettings(Config):
    blur: float = Field(0.0, ge=0, le=1, description="probability of a Gaussian blur")
    blur_sigma: FloatRange = Field((0.1, 2.0), description="its standard deviation in view pixels, uniform; cut at three of them")


class Blur(Augmentation[BlurSettings]):
    """blur: (B,) standard deviation in pixels."""

    settings = BlurSettings
    params = ("blur",)
    picks_rows_on_device = True  # two products with full matrices

    def draw(self, cfg: BlurSettings, draws: Draws) -> DrawnParams:
        if not cfg.blur:
            return {}
        u = draws.lanes(Purpose.BLUR, 2)
        return {"blur": np.where(u[0] < cfg.blur, uniform_between(u[1], *cfg.blur_sigma), 0.0)}

    def changed_rows(self, params: DrawnParams) -> BoolArray:
        return params["blur"] > 0

    def apply(self, views: Tensor, params: DrawnParams) -> None:
        gaussian_blur(views, params["blur"])

    def apply_on_device(self, views: Tensor, params: DeviceParams) -> Tensor:
        weight = blur_matrices(params.exact("blur"), views.shape[2])
        return multiply_axes(views, weight, weight)  # views are square


def gaussian_blur(images: Tensor, sigma: Array) -> Tensor:
    """A Gaussian of `sigma` pixels (B,), in place."""
    for image, own in zip(images, sigma, strict=True):
        reach = int(min(np.ceil(3 * own), min(images.shape[2:]) - 1))
        if reach < 1:
            continue
        taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / own) ** 2)
        taps = (taps / taps.sum()).astype(np.float32)
        for plane in planes_of(image):
            cv2.sepFilter2D(plane, cv2.CV_32F, taps, taps, dst=plane, borderType=cv2.BORDER_REFLECT_101)
    return images


def blur_matrices(sigma: Tensor, side: int) -> Tensor:
    """(B, S, S) float32: row i holds the weights of the inputs of output i; a tap beyond the border is that of the mirrored input.

    sigma: (B, 1) float64.  side: S."""
    tap = device_constant(_tap_numbers, side, like=sigma)
    taps = (tap / sigma.clamp_min(1e-6)).square_().mul_(-0.5).exp_()  # 1e-6: only the middle tap is left
    taps *= tap <= (3 * sigma).ceil()
    taps /= taps.sum(1, keepdim=True).mul_(2).sub_(1)  # the middle tap is 1, and alone
    direct, before, behind = device_constant(_tap_places, side, like=sigma)
    taps = taps.float()
    weight = taps.index_select(1, direct)
    weight += taps.index_select(1, before)
    weight += taps.index_select(1, behind)
    return weight.view(-1, side, side)


def _tap_numbers(side: int) -> Array:
    """0 to S; the last one is never within reach."""
    return np.append(np.arange(side), np.inf)


def _tap_places(side: int) -> Array:
    """(3, S * S) the tap by which each output takes each input: directly, mirrored at the first pixel, and at the last; S for none."""
    output, other = np.arange(side)[:, None], np.arange(side)
    direct = np.abs(output - other)
    before = np.where(other > 0, output + other, side)
    behind = np.where(other < side - 1, 2 * (side - 1) - output - other, side)
    taps: Array = np.minimum(np.stack([direct, before, behind]), side).reshape(3, -1)
    return taps
