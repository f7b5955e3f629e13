"""Cutout: a rectangle of the view is filled with the image's mean."""

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from encoders.augment.device_params import DeviceParams
from encoders.augment.operation import Augmentation, DrawnParams, Draws, FloatRange, log_uniform_between, uniform_between
from encoders.runtime.arrays import Array, BoolArray
from encoders.runtime.config import Config
from encoders.runtime.device_constant import device_constant
from encoders.runtime.random import Purpose


class CutoutSettings(Config):
    cutout: float = Field(0.0, ge=0, le=1, description="probability that a rectangle is filled with the image's mean")
    cutout_area: FloatRange = Field((0.02, 0.2), description="its share of the view's area, uniform; sides within 1:3 and 3:1")


class Cutout(Augmentation[CutoutSettings]):
    """cutout: (B, 4) top, left, height, width as shares of the view."""

    settings = CutoutSettings
    params = ("cutout",)

    def draw(self, cfg: CutoutSettings, draws: Draws) -> DrawnParams:
        if not cfg.cutout:
            return {}
        u = draws.lanes(Purpose.CUTOUT, 5)
        area, ratio = uniform_between(u[1], *cfg.cutout_area), log_uniform_between(u[2], (1 / 3, 3.0))
        high, wide = (np.minimum(np.sqrt(side), 1.0) for side in (area / ratio, area * ratio))
        hole = np.stack([u[3] * (1 - high), u[4] * (1 - wide), high, wide], axis=1)
        return {"cutout": hole * (u[0] < cfg.cutout)[:, None]}

    def changed_rows(self, params: DrawnParams) -> BoolArray:
        return params["cutout"][:, 2] > 0

    def apply(self, views: Tensor, params: DrawnParams) -> None:
        fill_holes(views, params["cutout"])

    def apply_on_device(self, views: Tensor, params: DeviceParams) -> Tensor:
        size = views.shape[2]  # views are square
        first, length = (params.exact("cutout") * size).round()[..., None].split(2, 1)  # (B, 2, 1); halves to even, as on a CPU
        pixel = device_constant(np.arange, size, like=first)
        rows, columns = ((pixel >= first) & (pixel < first + length)).unbind(1)  # (B, S) each
        return torch.where((rows[..., None] & columns[:, None])[:, None], views.mean((2, 3), keepdim=True), views)


def fill_holes(images: Tensor, hole: Array) -> Tensor:
    """hole (B, 4): top, left, height, width as shares of the view; filled with each channel's mean, in place."""
    h, w = images.shape[2:]
    for b in np.flatnonzero(hole[:, 2] * hole[:, 3]):
        top, left = round(hole[b, 0] * h), round(hole[b, 1] * w)
        high, wide = round(hole[b, 2] * h), round(hole[b, 3] * w)
        for plane in images[b]:
            plane[top : top + high, left : left + wide] = plane.mean()
    return images
