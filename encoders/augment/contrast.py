"""Contrast: the distance from an image's mean gray level is multiplied by a factor."""

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from encoders.augment.colour import AUGMENT_LUMA, ColourLane, JitterSettings, draw_jitter_factor, luma_together
from encoders.augment.device_params import DeviceParams
from encoders.augment.opencv import cv2, planes_of
from encoders.augment.operation import Augmentation, DrawnParams, Draws
from encoders.runtime.arrays import Array, BoolArray


class ContrastSettings(JitterSettings):
    contrast: float = Field(0.0, ge=0, description="distance from the mean gray level is multiplied by max(0, 1 +- this)")


class Contrast(Augmentation[ContrastSettings]):
    """contrast: (B,) factor."""

    settings = ContrastSettings
    params = ("contrast",)

    def draw(self, cfg: ContrastSettings, draws: Draws) -> DrawnParams:
        if not (cfg.jitter and cfg.contrast):
            return {}
        return {"contrast": draw_jitter_factor(cfg, draws, ColourLane.CONTRAST, cfg.contrast)}

    def changed_rows(self, params: DrawnParams) -> BoolArray:
        rows: BoolArray = params["contrast"] != 1
        return rows

    def apply(self, views: Tensor, params: DrawnParams) -> None:
        adjust_contrast(views, params["contrast"])

    def apply_on_device(self, views: Tensor, params: DeviceParams) -> Tensor:
        return torch.lerp(luma_together(views).mean((1, 2, 3), keepdim=True), views, params.single("contrast")).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Array) -> Tensor:
    """Distance from the mean gray level of each image times `factor` (B,), in place."""
    for image, own in zip(images, factor.tolist(), strict=True):
        means = [cv2.mean(plane)[0] for plane in planes_of(image)]
        middle = means[0] if len(means) == 1 else float(np.dot(AUGMENT_LUMA, means))  # the mean of the luma is the luma of the means
        torch.add(torch.tensor(middle * (1 - own)), image, alpha=own, out=image).clamp_(0, 1)
    return images
