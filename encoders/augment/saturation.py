"""Saturation: the distance of each pixel from gray is multiplied by a factor."""

import torch
from pydantic import Field
from torch import Tensor

from encoders.augment.colour import ColourLane, JitterSettings, draw_jitter_factor, luma, luma_together
from encoders.augment.device_params import DeviceParams
from encoders.augment.opencv import cv2, planes_of
from encoders.augment.operation import Augmentation, DrawnParams, Draws
from encoders.runtime.arrays import Array, BoolArray


class SaturationSettings(JitterSettings):
    saturation: float = Field(0.0, ge=0, description="distance from gray is multiplied by max(0, 1 +- this); nothing on one channel")


class Saturation(Augmentation[SaturationSettings]):
    """saturation: (B,) factor."""

    settings = SaturationSettings
    params = ("saturation",)

    def draw(self, cfg: SaturationSettings, draws: Draws) -> DrawnParams:
        if not (cfg.jitter and cfg.saturation):
            return {}
        return {"saturation": draw_jitter_factor(cfg, draws, ColourLane.SATURATION, cfg.saturation)}

    def changed_rows(self, params: DrawnParams) -> BoolArray:
        rows: BoolArray = params["saturation"] != 1
        return rows

    def apply(self, views: Tensor, params: DrawnParams) -> None:
        adjust_saturation(views, params["saturation"])

    def apply_on_device(self, views: Tensor, params: DeviceParams) -> Tensor:
        return views if views.shape[1] == 1 else torch.lerp(luma_together(views), views, params.single("saturation")).clamp_(0, 1)


def adjust_saturation(images: Tensor, factor: Array) -> Tensor:
    """Distance from gray times `factor` (B,), in place; one channel stays unchanged."""
    if images.shape[1] == 1:
        return images
    for image, own in zip(images, factor.tolist(), strict=True):
        gray = luma(image[None])[0, 0].numpy()
        for plane in planes_of(image):
            cv2.addWeighted(plane, own, gray, 1 - own, 0, dst=plane)
        image.clamp_(0, 1)
    return images
