"""From a square of micrometres to pixels: which level is read, how much of it, and what brings it to the exact size.

Shapes: W, H of the result; L0 means pixels of the largest level.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.mpp import Resolution
from encoders.ingest.wsi.slide import Slide

LEVEL_TOLERANCE = 0.01  # a level this much too coarse still serves: without it 2.0005 for 2 would cost four times the pixels
SIZE_TOLERANCE = (
    0.0025  # a size off by less (0.499 for 0.5 um) is left as it is: scanners are not known better, and resampling blurs and costs
)
FILTER_MARGIN = 3  # pixels of the result read around it, so that the filter does not end at the border


def best_level(downsamples: Sequence[float], wanted: float) -> int:
    """The coarsest level that is at most TOLERANCE coarser than `wanted`. Raises Unreadable when even L0 is too coarse."""
    fits = [level for level, downsample in enumerate(downsamples) if downsample <= wanted * (1 + LEVEL_TOLERANCE)]
    if not fits:
        raise Unreadable(f"is {1 / wanted:.2f} times too coarse for this --mpp; details cannot be made up, so choose a larger one")
    return max(fits, key=lambda level: downsamples[level])


@dataclass(frozen=True)
class TileGeometry:
    """How regions of one size are read from one slide."""

    level: int
    downsample: float  # of the level
    size: tuple[int, int]  # (W, H) of the result
    span: tuple[float, float]  # (W, H) of the region in pixels of the level, with their fractions
    shrink: tuple[int, int]  # whole-number part of the reduction, done by averaging

    @classmethod
    def make(cls, downsamples: Sequence[float], resolution: Resolution, mpp: float, size: tuple[int, int]) -> "TileGeometry":
        """The cut that gives `size` pixels of `mpp` um. Raises Unreadable when the slide is coarser than that."""
        level = best_level(downsamples, mpp / max(resolution.x, resolution.y))
        each = [side * mpp / of / downsamples[level] for side, of in zip(size, (resolution.x, resolution.y), strict=True)]
        shrink = [max(1, math.floor(span / side * (1 + SIZE_TOLERANCE))) for span, side in zip(each, size, strict=True)]
        return cls(level, downsamples[level], size, (each[0], each[1]), (shrink[0], shrink[1]))

    @cached_property
    def exact(self) -> bool:
        """Whether averaging alone gives the size, to within EXACT."""
        return all(abs(s / (k * n) - 1) <= SIZE_TOLERANCE for s, k, n in zip(self.span, self.shrink, self.size, strict=True))

    def stored(self, mpp: float) -> float:
        """um a pixel of what `read` gives, where `mpp` was asked for: that, or what is within EXACT of it."""
        return mpp * self.size[0] * self.shrink[0] / self.span[0] if self.exact else mpp

    @property
    def field(self) -> tuple[float, float]:
        """(W, H) of the region at L0."""
        return self.span[0] * self.downsample, self.span[1] * self.downsample

    def read(self, slide: Slide, x: int, y: int) -> Any:
        """Pillow RGB image (H, W) of the region whose corner is the L0 pixel (x, y): averaged, then bicubic for the rest."""
        from PIL import Image

        (kx, ky), (w, h) = self.shrink, self.size
        if self.exact:
            image = slide.read(x, y, self.level, kx * w, ky * h, nearest=True)  # `positions` are of whole pixels of the level
            return image if self.shrink == (1, 1) else image.reduce(self.shrink)
        left, top = round(FILTER_MARGIN * kx * self.downsample), round(FILTER_MARGIN * ky * self.downsample)  # L0
        wide, high = kx * (math.ceil(self.span[0] / kx) + 2 * FILTER_MARGIN), ky * (math.ceil(self.span[1] / ky) + 2 * FILTER_MARGIN)
        image = slide.read(x - left, y - top, self.level, wide, high)
        image = image if self.shrink == (1, 1) else image.reduce(self.shrink)
        ax, ay = left / self.downsample / kx, top / self.downsample / ky
        box = ax, ay, ax + self.span[0] / kx, ay + self.span[1] / ky
        return image.resize(self.size, Image.Resampling.BICUBIC, box=box)

    def positions(self, start: int, length: int, axis: int, overlap: int) -> list[int]:
        """L0 coordinates of the regions along an axis that fit into `length` from `start`, each on a whole pixel of the level.

        A position is counted from the start anew, so rounding does not add up."""
        step = self.span[axis] * (1 - overlap / self.size[axis])
        count = math.floor((length / self.downsample - self.span[axis] + 0.5) / step) + 1  # half a pixel beyond the edge is forgiven
        return [start + round(round(k * step) * self.downsample) for k in range(max(0, count))]
