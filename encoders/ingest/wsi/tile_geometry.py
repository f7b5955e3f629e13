"""From a tile in micrometres to pixels: the level that is read, the size of the region, and the reduction to the exact size.

Shapes: W, H of the result; L0 means pixels of the largest level.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.mpp import Resolution
from encoders.ingest.wsi.slide import Slide

if TYPE_CHECKING:
    from PIL import Image

LEVEL_TOLERANCE = 0.01  # a level may be this much too coarse; otherwise 2.0005 instead of 2 would read four times as many pixels
# Relative: a smaller deviation (0.499 for 0.5 um) is not corrected. Scanners are not more exact, and resampling blurs and takes time.
SIZE_TOLERANCE = 0.0025
FILTER_MARGIN = 3  # pixels of the result that are read around it, so that the filter has no border inside


class TooCoarse(Unreadable):
    """The slide is coarser than its tiles may be.  mpp: the smallest that its pixels give without upscaling."""

    def __init__(self, mpp: float, asked: float, max_upscale: float):
        factor = f"is {mpp / asked:.2f} times too coarse for --mpp {asked:g}: it has {mpp:.5g} um per pixel"
        super().__init__(f"{factor}, and --max-upscale allows {max_upscale:g} times {asked:g}")
        self.mpp = mpp


def best_level(downsamples: Sequence[float], wanted: float, max_upscale: float = 1 + LEVEL_TOLERANCE) -> int | None:
    """The coarsest level that is at most LEVEL_TOLERANCE coarser than `wanted`, else the finest; None beyond `max_upscale`.

    A level within SIZE_TOLERANCE is not resampled, so it always fits."""
    limit = max(max_upscale, 1 + SIZE_TOLERANCE)
    fits = [level for level, downsample in enumerate(downsamples) if downsample <= wanted * min(limit, 1 + LEVEL_TOLERANCE)]
    if fits:
        return max(fits, key=lambda level: downsamples[level])
    finest = min(range(len(downsamples)), key=lambda level: downsamples[level])
    return finest if downsamples[finest] <= wanted * limit else None


@dataclass(frozen=True)
class TileGeometry:
    """How tiles of one size are read from one slide."""

    level: int
    downsample: float  # of the level
    size: tuple[int, int]  # (W, H) of the result
    span: tuple[float, float]  # (W, H) of the region in pixels of the level, not rounded
    shrink: tuple[int, int]  # integer part of the reduction, by averaging
    snap: bool = True  # read from the nearest whole pixel of the level; False: exactly at the corner, as OpenSlide interpolates there

    @classmethod
    def for_resolution(
        cls,
        downsamples: Sequence[float],
        resolution: Resolution,
        mpp: float,
        size: tuple[int, int],
        max_upscale: float = 1 + LEVEL_TOLERANCE,
    ) -> "TileGeometry":
        """The geometry for tiles of `size` pixels with `mpp` micrometres per pixel.

        max_upscale: how many times coarser the slide may be.  Raises TooCoarse if it is coarser."""
        field = size[0] * mpp / resolution.x, size[1] * mpp / resolution.y
        return cls.for_field(downsamples, field, size, max_upscale, max(resolution.x, resolution.y))

    @classmethod
    def for_field(
        cls, downsamples: Sequence[float], field: tuple[float, float], size: tuple[int, int], max_upscale: float, slide_mpp: float
    ) -> "TileGeometry":
        """The geometry for tiles of `size` pixels that show `field` L0 pixels, (W, H) each.

        max_upscale: how many times coarser the slide may be.  slide_mpp: of its coarser axis.  Raises TooCoarse beyond that."""
        wanted = min(field[0] / size[0], field[1] / size[1])
        level = best_level(downsamples, wanted, max_upscale)
        if level is None:
            raise TooCoarse(slide_mpp * min(downsamples), wanted * slide_mpp, max_upscale)
        each = [side / downsamples[level] for side in field]
        shrink = [max(1, math.floor(span / side * (1 + SIZE_TOLERANCE))) for span, side in zip(each, size, strict=True)]
        return cls(level, downsamples[level], size, (each[0], each[1]), (shrink[0], shrink[1]))

    @cached_property
    def is_exact(self) -> bool:
        """Whether averaging alone gives the size, within SIZE_TOLERANCE."""
        return all(abs(s / (k * n) - 1) <= SIZE_TOLERANCE for s, k, n in zip(self.span, self.shrink, self.size, strict=True))

    @property
    def upscale(self) -> float:
        """How many times coarser than the tiles the level is, along its coarser axis; 1 if the tiles are not interpolated upwards."""
        return 1.0 if self.is_exact else max(1.0, *(n / s for n, s in zip(self.size, self.span, strict=True)))

    def actual_mpp(self, mpp: float) -> float:
        """Micrometres per pixel of a tile for the requested `mpp`: the same, or a value within SIZE_TOLERANCE."""
        return mpp * self.size[0] * self.shrink[0] / self.span[0] if self.is_exact else mpp

    @property
    def field(self) -> tuple[float, float]:
        """(W, H) of the region at L0."""
        return self.span[0] * self.downsample, self.span[1] * self.downsample

    def read(self, slide: Slide, x: int, y: int) -> "Image.Image":
        """Pillow RGB image (H, W) of the region with its corner at the L0 pixel (x, y): averaged, then resized bicubically."""
        from PIL import Image

        (kx, ky), (w, h) = self.shrink, self.size
        if self.is_exact:
            image = slide.read(x, y, self.level, kx * w, ky * h, nearest=self.snap)  # `positions` are whole pixels of the level
            return image if self.shrink == (1, 1) else image.reduce(self.shrink)
        left, top = round(FILTER_MARGIN * kx * self.downsample), round(FILTER_MARGIN * ky * self.downsample)  # L0
        wide, high = kx * (math.ceil(self.span[0] / kx) + 2 * FILTER_MARGIN), ky * (math.ceil(self.span[1] / ky) + 2 * FILTER_MARGIN)
        image = slide.read(x - left, y - top, self.level, wide, high)
        image = image if self.shrink == (1, 1) else image.reduce(self.shrink)
        ax, ay = left / self.downsample / kx, top / self.downsample / ky
        box = ax, ay, ax + self.span[0] / kx, ay + self.span[1] / ky
        return image.resize(self.size, Image.Resampling.BICUBIC, box=box)

    def positions(self, start: int, length: int, axis: int, overlap: int) -> list[int]:
        """L0 coordinates of the tiles along an axis that fit into `length` from `start`, each on a whole pixel of the level.

        Every position is computed from the start, so that rounding errors do not accumulate."""
        step = self.span[axis] * (1 - overlap / self.size[axis])
        count = math.floor((length / self.downsample - self.span[axis] + 0.5) / step) + 1  # a tile may exceed the edge by half a pixel
        return [start + round(round(k * step) * self.downsample) for k in range(max(0, count))]
