"""Stain mixing: an image as if stained between its own stain and that of another image of the corpus.

Source: Chang et al. 2021, "Stain Mix-Up", arXiv:2109.01483, with Macenko's stains. Departures: the partner is any image of the corpus, not
one of the batch, so that a view is a function of (seed, position, view) alone, in any rank or micro-batch; and what the two
stains do not explain (pigment, pen) stays unchanged. In optical density that is one linear map per image.

Shapes: B images, H, W pixels.
"""

import numpy as np
from pydantic import Field
from torch import Tensor

from encoders.augment.device_params import DeviceParams
from encoders.augment.operation import Augmentation, DrawnParams, Draws, PixelSource
from encoders.augment.stain_jitter import map_densities_together, map_density
from encoders.runtime.arrays import Array, BoolArray, FloatArray
from encoders.runtime.config import Config
from encoders.runtime.random import Purpose
from encoders.stain import methods

STAIN_SAMPLE_SIDE = 64  # pixels a side that stains are estimated from: every n-th of the image, a millisecond instead of a dozen


class StainMixSettings(Config):
    stain_mix: float = Field(
        0.0, ge=0, le=1, description="probability that an image is stained as one between itself and another of the corpus; RGB only"
    )


class StainMix(Augmentation[StainMixSettings]):
    """stain_map: (B, 3, 3) linear map of optical density.  Drawn only where pixels are given, and have three channels."""

    settings = StainMixSettings
    params = ("stain_map",)

    def draw(self, cfg: StainMixSettings, draws: Draws) -> DrawnParams:
        if not cfg.stain_mix or draws.pixels is None or draws.pixels.images.shape[3] != 3:
            return {}
        return {"stain_map": draw_stain_maps(draws.pixels, cfg.stain_mix, draws.lanes(Purpose.STAIN_MIX, 3))}

    def changed_rows(self, params: DrawnParams) -> BoolArray:
        rows: BoolArray = (params["stain_map"] != np.eye(3)).any((1, 2))
        return rows

    def apply(self, views: Tensor, params: DrawnParams) -> None:
        map_density(views, params["stain_map"])

    def apply_on_device(self, views: Tensor, params: DeviceParams) -> Tensor:
        return map_densities_together(views, params.exact("stain_map").view(-1, 3, 3))  # drawn for three channels only


def draw_stain_maps(pixels: PixelSource, probability: float, u: FloatArray) -> FloatArray:
    """(B, 3, 3) maps of optical density; the identity where none is drawn, or an image does not have two stains.

    u: (3, B) uniform numbers: whether to mix, how far, and with which row of the pool."""
    maps = np.tile(np.eye(3), (len(pixels.images), 1, 1))
    for row in np.flatnonzero(u[0] < probability):
        partner = int(pixels.pool[int(u[2, row] * len(pixels.pool))])
        own = methods.estimate_stains(subsample_pixels(pixels.images[row] / pixels.scale))
        other = methods.estimate_stains(subsample_pixels(pixels.store.unit_images([partner])[0]))
        if own is not None and other is not None:
            maps[row] = methods.density_mapping(own, methods.interpolate_stains(own, other, float(u[1, row])), keep_rest=True)
    return maps


def subsample_pixels(image: Array) -> Array:
    """About STAIN_SAMPLE_SIDE x STAIN_SAMPLE_SIDE of its pixels."""
    step = max(1, min(image.shape[:2]) // STAIN_SAMPLE_SIDE)
    return image[::step, ::step]
