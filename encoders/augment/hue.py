"""Hue: rotated by a share of the circle in HSV."""

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from encoders.augment.colour import ColourLane, JitterSettings, colour_lanes
from encoders.augment.device_params import DeviceParams
from encoders.augment.opencv import cv2, planes_of
from encoders.augment.operation import Augmentation, DrawnParams, Draws, uniform_between
from encoders.runtime.arrays import Array, BoolArray
from encoders.runtime.device_constant import device_constant


class HueSettings(JitterSettings):
    hue: float = Field(0.0, ge=0, le=0.5, description="hue is turned by +- this share of the circle; nothing on one channel")


class Hue(Augmentation[HueSettings]):
    """hue: (B,) share of the circle."""

    settings = HueSettings
    params = ("hue",)

    def draw(self, cfg: HueSettings, draws: Draws) -> DrawnParams:
        if not (cfg.jitter and cfg.hue):
            return {}
        u = colour_lanes(draws)
        return {"hue": np.where(u[ColourLane.JITTER] < cfg.jitter, uniform_between(u[ColourLane.HUE], -cfg.hue, cfg.hue), 0.0)}

    def changed_rows(self, params: DrawnParams) -> BoolArray:
        rows: BoolArray = params["hue"] != 0
        return rows

    def apply(self, views: Tensor, params: DrawnParams) -> None:
        rotate_hue(views, params["hue"])

    def apply_on_device(self, views: Tensor, params: DeviceParams) -> Tensor:
        return views if views.shape[1] == 1 else rotate_hue_together(views, params.single("hue"))


def rotate_hue(images: Tensor, turns: Array) -> Tensor:
    """Hue rotated by `turns` (B,) at the same value and saturation, in place; one channel stays unchanged."""
    if images.shape[1] == 1:
        return images
    for image, turn in zip(images, turns, strict=True):
        planes = planes_of(image)
        pixels: Array = cv2.merge(planes)  # (H, W, 3)
        cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV, dst=pixels)  # hue in degrees
        pixels[..., 0] += np.float32(360 * (turn % 1.0))  # OpenCV takes no negative hue
        cv2.cvtColor(pixels, cv2.COLOR_HSV2RGB, dst=pixels)
        cv2.split(pixels, planes)
    return images


def rotate_hue_together(images: Tensor, turns: Tensor) -> Tensor:
    """As `rotate_hue`, by the closed form.  turns: (B, 1, 1, 1).

    A channel is  low + range * clip(|h mod 6 - 3| - 1, 0, 1),  h the hue in sixths, counted from the channel's own primary."""
    red, green, blue = images.split(1, 1)  # (B, 1, H, W) each
    high, low = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    span = high - low
    other = torch.where(green == high, (blue - red).add_(span, alpha=2), (red - green).add_(span, alpha=4))
    h = torch.where(red == high, green - blue, other).div_(span.clamp_min(1e-12))  # in sixths
    from_primary = h + torch.add(device_constant(_minus_primaries, like=images), turns, alpha=6)  # (B, 3, H, W)
    return torch.addcmul(low, from_primary.remainder_(6).sub_(3).abs_().sub_(1).clamp_(0, 1), span)


def _minus_primaries() -> Array:
    """The hues of red, green and blue in sixths, negative."""
    return np.array([0, -2, -4], np.float32).reshape(3, 1, 1)
