"""Solarisation: values at or above a threshold are inverted."""

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from encoders.augment.device_params import DeviceParams
from encoders.augment.operation import Augmentation, DrawnParams, Draws, broadcast_per_image
from encoders.runtime.arrays import Array, BoolArray
from encoders.runtime.config import Config
from encoders.runtime.random import Purpose

ABOVE_ANY_VALUE = 2.0  # the threshold of a row that is not solarised


class SolariseSettings(Config):
    solarise: float = Field(0.0, ge=0, le=1, description="probability that values at or above the threshold are inverted")
    solarise_threshold: float = Field(0.5, ge=0, le=1, description="in [0, 1]; 128 of 255 in BYOL")


class Solarise(Augmentation[SolariseSettings]):
    """solarise: (B,) threshold."""

    settings = SolariseSettings
    params = ("solarise",)

    def draw(self, cfg: SolariseSettings, draws: Draws) -> DrawnParams:
        if not cfg.solarise:
            return {}
        return {"solarise": np.where(draws.lanes(Purpose.SOLARISE, 1)[0] < cfg.solarise, cfg.solarise_threshold, ABOVE_ANY_VALUE)}

    def changed_rows(self, params: DrawnParams) -> BoolArray:
        return params["solarise"] <= 1

    def apply(self, views: Tensor, params: DrawnParams) -> None:
        invert_above(views, params["solarise"])

    def apply_on_device(self, views: Tensor, params: DeviceParams) -> Tensor:
        return torch.where(views >= params.single("solarise"), 1 - views, views)


def invert_above(images: Tensor, threshold: Array) -> Tensor:
    """Values at or above `threshold` (B,) inverted, in place: v + above * (1 - 2 v)."""
    above = (images >= broadcast_per_image(threshold, images)).to(images.dtype)
    return images.add_(above.mul_(torch.sub(1, images, alpha=2)))
