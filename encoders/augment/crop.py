"""The crop of the source that becomes the view, distributed as torchvision's RandomResizedCrop."""

from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from encoders.augment.operation import Augmentation, DrawnParams, Draws, FloatRange, check_positive, log_uniform_between, uniform_between
from encoders.runtime.arrays import FloatArray
from encoders.runtime.config import Config
from encoders.runtime.random import Purpose

CROP_TRIES = 10  # as torchvision.transforms.RandomResizedCrop, before it falls back to the centre


class CropSettings(Config):
    crop: FloatRange | None = Field(None, description="area of the crop as a share of the image, drawn uniformly; null: the whole image")
    ratio: FloatRange = Field((3 / 4, 4 / 3), description="width over height of the crop, drawn log-uniformly")
    interpolation: Literal["bilinear", "bicubic"] = Field("bilinear", description="antialiased kernel of the resampling")

    @model_validator(mode="after")
    def _check_crop(self) -> Self:
        if self.crop is not None and not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise ValueError("crop: expected 0 < low <= high <= 1, shares of the image's area")
        check_positive("ratio", self.ratio)
        return self


class Crop(Augmentation[CropSettings]):
    """box: (B, 4) top, left, height, width in source pixels.  cubic: (B,) the kernel, the same for every row.  Always drawn."""

    settings = CropSettings
    params = ("box", "cubic")

    def draw(self, cfg: CropSettings, draws: Draws) -> DrawnParams:
        if cfg.crop is None:
            box = np.tile(np.array([0.0, 0.0, *draws.source]), (len(draws), 1))
        else:
            box = crop_boxes(draws.lanes(Purpose.CROP, 2 * CROP_TRIES + 2), cfg.crop, cfg.ratio, draws.source)
        return {"box": box, "cubic": np.full(len(draws), cfg.interpolation == "bicubic")}


def crop_boxes(u: FloatArray, area: tuple[float, float], ratio: tuple[float, float], source: tuple[int, int]) -> FloatArray:
    """Crops (B, 4) as top, left, height, width in whole pixels.

    u: (2 CROP_TRIES + 2, B) uniform numbers: the areas, the ratios, and the position."""
    height, width = source
    target = uniform_between(u[:CROP_TRIES], *area) * height * width  # (CROP_TRIES, B)
    aspect = log_uniform_between(u[CROP_TRIES : 2 * CROP_TRIES], ratio)
    wide, high = np.rint(np.sqrt(target * aspect)), np.rint(np.sqrt(target / aspect))
    fits = (wide > 0) & (wide <= width) & (high > 0) & (high <= height)
    first, column = fits.argmax(axis=0), np.arange(u.shape[1])
    high, wide, any_fits = high[first, column], wide[first, column], fits.any(axis=0)
    central = _central_crop_size(ratio, source)
    high, wide = np.where(any_fits, high, central[0]), np.where(any_fits, wide, central[1])
    room = np.stack([height - high, width - wide])  # (2, B): how far the crop's corner can move
    corner = np.where(any_fits, np.minimum(np.floor(u[2 * CROP_TRIES :] * (room + 1)), room), np.floor(room / 2))
    return np.stack([corner[0], corner[1], high, wide], axis=1)


def _central_crop_size(ratio: tuple[float, float], source: tuple[int, int]) -> tuple[float, float]:
    """(height, width) of the largest central crop with a permitted ratio, for images too long for any other."""
    height, width = source
    if width / height < ratio[0]:
        return float(min(height, max(1, round(width / ratio[0])))), float(width)
    if width / height > ratio[1]:
        return float(height), float(min(width, max(1, round(height * ratio[1]))))
    return float(height), float(width)
