"""A gamma curve: values are raised to a power."""

from typing import Self

import numpy as np
from pydantic import Field, model_validator
from torch import Tensor

from encoders.augment.colour import ColourLane, colour_lanes
from encoders.augment.device_params import DeviceParams
from encoders.augment.opencv import cv2, planes_of
from encoders.augment.operation import (
    Augmentation,
    DrawnParams,
    Draws,
    FloatRange,
    check_positive,
    log_uniform_between,
)
from encoders.runtime.arrays import Array, BoolArray
from encoders.runtime.config import Config


class GammaSettings(Config):
    gamma: float = Field(0.0, ge=0, le=1, description="probability of a gamma curve")
    gamma_range: FloatRange = Field((0.7, 1.5), description="the exponent, drawn log-uniformly")

    @model_validator(mode="after")
    def _check_gamma_range(self) -> Self:
        check_positive("gamma_range", self.gamma_range)
        return self


class Gamma(Augmentation[GammaSettings]):
    """gamma: (B,) exponent."""

    settings = GammaSettings
    params = ("gamma",)

    def draw(self, cfg: GammaSettings, draws: Draws) -> DrawnParams:
        if not cfg.gamma:
            return {}
        u = colour_lanes(draws)
        exponent = log_uniform_between(u[ColourLane.GAMMA_EXPONENT], cfg.gamma_range)
        return {"gamma": np.where(u[ColourLane.GAMMA] < cfg.gamma, exponent, 1.0)}

    def changed_rows(self, params: DrawnParams) -> BoolArray:
        rows: BoolArray = params["gamma"] != 1
        return rows

    def apply(self, views: Tensor, params: DrawnParams) -> None:
        adjust_gamma(views, params["gamma"])

    def apply_on_device(self, views: Tensor, params: DeviceParams) -> Tensor:
        return views.pow_(params.single("gamma"))


def adjust_gamma(images: Tensor, exponent: Array) -> Tensor:
    """Values to the power of `exponent` (B,), in place."""
    for image, own in zip(images, exponent.tolist(), strict=True):
        for plane in planes_of(image):
            cv2.pow(plane, own, dst=plane)
    return images
