"""Contrast-limited adaptive histogram equalisation (CLAHE): the contrast of each part of an image is spread over all levels.

In each of 8 x 8 tiles the levels become the cumulative histogram of the tile, in which no level counts more than `limit` times the mean:
what is above is spread evenly over all levels. Between the centres of tiles, the results of the four nearest ones are interpolated. Of a
colour image the luma is changed and the differences of the channels from it are kept, as on the Y of YCrCb.

Source: Zuiderveld 1994, Graphics Gems IV, VIII.5. Departures: a value between two of the 256 levels counts for both in proportion, so that
images of 16 bits keep their depth and no value is at a jump; and the excess is spread in fractions. OpenCV's `createCLAHE` rounds the limit
and the excess to whole pixels, which in tiles of up to a thousand pixels makes steps of many levels; in tiles of 16,000 pixels or more they
agree to two levels. The same code runs on a CPU and on a CUDA device, with integer counts, which depend on no order of the sum.

Shapes: B images, C channels, S pixels of a side, P those of the side padded to whole tiles, T tiles a side, L levels.
"""

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from encoders.augment.colour import luma_together
from encoders.augment.device_params import DeviceParams
from encoders.augment.operation import Augmentation, DrawnParams, Draws, FloatRange, broadcast_per_image, uniform_between
from encoders.runtime.arrays import Array, BoolArray
from encoders.runtime.config import Config
from encoders.runtime.device_constant import device_constant
from encoders.runtime.random import Purpose

CLAHE_TILES = 8  # a side, as OpenCV's and albumentations' default
CLAHE_LEVELS = 256
COUNT_PARTS = 1 << 16  # a pixel counts as so many parts, which are divided between two levels


class ClaheSettings(Config):
    clahe: float = Field(0.0, ge=0, le=1, description="probability of an equalisation of local histograms (CLAHE), in 8 x 8 tiles")
    clahe_limit: FloatRange = Field(
        (1.0, 4.0), description="its contrast limit, uniform: the most that a level counts, as a multiple of the mean"
    )


class Clahe(Augmentation[ClaheSettings]):
    """clahe: (B,) contrast limit; 0 for a row without it."""

    settings = ClaheSettings
    params = ("clahe",)
    picks_rows_on_device = True  # eight look-ups per pixel

    def draw(self, cfg: ClaheSettings, draws: Draws) -> DrawnParams:
        if not cfg.clahe:
            return {}
        u = draws.lanes(Purpose.CLAHE, 2)
        return {"clahe": np.where(u[0] < cfg.clahe, uniform_between(u[1], *cfg.clahe_limit), 0.0)}

    def changed_rows(self, params: DrawnParams) -> BoolArray:
        return params["clahe"] > 0

    def apply(self, views: Tensor, params: DrawnParams) -> None:
        equalise_tiles(views, broadcast_per_image(params["clahe"], views))

    def apply_on_device(self, views: Tensor, params: DeviceParams) -> Tensor:
        return equalise_tiles(views, params.single("clahe"))


def equalise_tiles(images: Tensor, limit: Tensor) -> Tensor:
    """CLAHE of (B, C, S, S) in place.  limit: (B, 1, 1, 1) above 0, or a single number for all images."""
    before = luma_together(images)[:, 0]  # (B, S, S)
    scaled = before * (CLAHE_LEVELS - 1)
    lower = scaled.floor().clamp_(0, CLAHE_LEVELS - 2)
    share = (scaled - lower).clamp_(0, 1)  # of the level above
    after = look_up_levels(count_tile_levels(lower, share, limit), lower, share)
    return images.copy_(after[:, None]) if images.shape[1] == 1 else images.add_((after - before)[:, None]).clamp_(0, 1)


def count_tile_levels(lower: Tensor, share: Tensor, limit: Tensor) -> Tensor:
    """(B, T * T * L) float32: what each level of each tile becomes, from 0 to 1.  lower, share: (B, S, S)."""
    size, n = lower.shape[-1], len(lower)
    padded = device_constant(_mirrored_places, size, like=lower)  # (P,)
    lower, share = (x.index_select(1, padded).index_select(2, padded).flatten(1) for x in (lower, share))  # (B, P * P)
    bins = lower.long() + device_constant(_first_levels, size, like=lower)
    parts = (share * COUNT_PARTS).round().long()
    counts = torch.zeros(n, CLAHE_TILES**2 * CLAHE_LEVELS, dtype=torch.int64, device=lower.device)
    counts.scatter_add_(1, bins, COUNT_PARTS - parts).scatter_add_(1, bins + 1, parts)
    pixels = len(padded) ** 2 // CLAHE_TILES**2  # of a tile
    of_level = counts.view(n, CLAHE_TILES**2, CLAHE_LEVELS).double() / COUNT_PARTS
    most = limit.double().reshape(-1, 1, 1) * (pixels / CLAHE_LEVELS)
    kept = torch.minimum(of_level, most)
    kept += (of_level - kept).sum(-1, keepdim=True) / CLAHE_LEVELS
    return (kept.cumsum(-1) / pixels).float().flatten(1)


def look_up_levels(table: Tensor, lower: Tensor, share: Tensor) -> Tensor:
    """(B, S, S): the mean of the four nearest tiles, weighted by their distance.  table: (B, T * T * L)."""
    first, weight = (device_constant(build, lower.shape[-1], like=lower) for build in (_near_tiles, _near_weights))  # (4, S, S) each
    index = lower.long()[:, None] + first  # (B, 4, S, S)
    low, high = (table.gather(1, (index + step).flatten(1)).view(index.shape) for step in (0, 1))
    return torch.lerp(low, high, share[:, None]).mul_(weight).sum(1)


def _tile_side(size: int) -> int:
    return -(-size // CLAHE_TILES)


def _mirrored_places(size: int) -> Array:
    """(P,) the pixel at each place of a side that is padded at its end, mirrored at the last pixel."""
    place = np.arange(_tile_side(size) * CLAHE_TILES)
    return np.maximum(np.minimum(place, 2 * (size - 1) - place), 0)


def _first_levels(size: int) -> Array:
    """(P * P,) the number of level 0 of the tile of each pixel."""
    tile = np.arange(_tile_side(size) * CLAHE_TILES) // _tile_side(size)
    return ((tile[:, None] * CLAHE_TILES + tile) * CLAHE_LEVELS).ravel()


def _tile_distance(size: int) -> Array:
    """(S,) the place of each pixel, in tiles from the centre of the first one."""
    return (np.arange(size)) / _tile_side(size) - 0.5


def _near_tiles(size: int) -> Array:
    """(4, S, S) the number of level 0 of each of the four tiles whose centres surround a pixel; at the border one comes twice."""
    before = np.floor(_tile_distance(size)).astype(np.int64)
    near = [np.clip(before + step, 0, CLAHE_TILES - 1) for step in (0, 1)]
    return np.stack([(row[:, None] * CLAHE_TILES + column) * CLAHE_LEVELS for row in near for column in near])


def _near_weights(size: int) -> Array:
    """(4, S, S) float32, their weights."""
    distance = _tile_distance(size)
    after = (distance - np.floor(distance)).astype(np.float32)
    return np.stack([row[:, None] * column for row in (1 - after, after) for column in (1 - after, after)])
