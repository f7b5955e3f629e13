"""Grayscale: every channel becomes the gray level."""

import torch
from pydantic import Field
from torch import Tensor

from encoders.augment.colour import ColourLane, colour_lanes, luma, luma_together
from encoders.augment.device_params import DeviceParams
from encoders.augment.operation import Augmentation, DrawnParams, Draws
from encoders.runtime.arrays import BoolArray
from encoders.runtime.config import Config


class GrayscaleSettings(Config):
    grayscale: float = Field(0.0, ge=0, le=1, description="probability that colours are dropped (ITU-R 601 luma); nothing on one channel")


class Grayscale(Augmentation[GrayscaleSettings]):
    """grayscale: (B,) bool."""

    settings = GrayscaleSettings
    params = ("grayscale",)

    def draw(self, cfg: GrayscaleSettings, draws: Draws) -> DrawnParams:
        return {"grayscale": colour_lanes(draws)[ColourLane.GRAYSCALE] < cfg.grayscale} if cfg.grayscale else {}

    def changed_rows(self, params: DrawnParams) -> BoolArray:
        return params["grayscale"]

    def apply(self, views: Tensor, params: DrawnParams) -> None:
        drop_colour(views)

    def apply_on_device(self, views: Tensor, params: DeviceParams) -> Tensor:
        return views if views.shape[1] == 1 else torch.where(params.single("grayscale") > 0, luma_together(views), views)


def drop_colour(images: Tensor) -> Tensor:
    """The gray level in every channel, in place."""
    return images if images.shape[1] == 1 else images.copy_(luma(images).expand_as(images))
