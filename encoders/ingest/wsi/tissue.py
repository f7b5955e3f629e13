"""Where on a slide there is tissue: an overview at a fixed resolution, and a mask of it.

Shapes: H, W of overview and mask.
"""

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.mpp import Resolution
from encoders.ingest.wsi.slide import Slide
from encoders.ingest.wsi.tile_geometry import TileGeometry

OVERVIEW_BLOCK = 64  # pixels of the overview made at a time: a slide with one level only must not come into memory whole
MIN_BLOCK, MAX_DAMAGED_BLOCKS = (
    8,
    64,
)  # pixels of the least square that a damaged block is cut into; blocks: a slide with more of them is broken
SATURATION_FLOOR, SATURATION_CEILING = 8, 45  # saturation (0-255): Otsu's threshold is held here, where glass ends and pale stain begins
CLOSING_RADIUS_UM = 32.0  # radius: gaps between cells and fibres belong to the tissue
MIN_TISSUE_UM2 = 20_000.0  # a square of 140 um: less is dust


@dataclass(frozen=True)
class Overview:
    """A small picture of what was scanned; pixel (row, column) is the square of `scale` L0 pixels there."""

    image: NDArray[np.uint8]  # (H, W, 3)
    origin: tuple[int, int]  # L0 (x, y) of its corner
    scale: tuple[float, float]  # L0 pixels a pixel, along x and y
    mpp: float  # um a pixel
    unknown: NDArray[np.bool_]  # (H, W): damaged


def read_overview(slide: Slide, resolution: Resolution, mpp: float) -> Overview:
    """The scanned part at `mpp` um a pixel, or at L0 where that is coarser; made in blocks.

    What is damaged is read from a finer level, or else left unknown. Raises Unreadable for all of it, or more than MOST_DAMAGED blocks."""
    mpp = max(mpp, resolution.x, resolution.y)
    scale = mpp / resolution.x, mpp / resolution.y
    x0, y0, width, height = slide.bounds
    cut = TileGeometry.make(slide.downsamples, resolution, mpp, (OVERVIEW_BLOCK, OVERVIEW_BLOCK))
    image = np.full((math.ceil(height / scale[1]), math.ceil(width / scale[0]), 3), 255, np.uint8)
    unknown = np.zeros(image.shape[:2], bool)
    faults: list[Unreadable] = []

    def read(top: int, left: int, by: TileGeometry) -> None:
        block = np.asarray(by.read(slide, x0 + round(left * scale[0]), y0 + round(top * scale[1])))
        rows, columns = image[top : top + len(block), left : left + len(block)].shape[:2]
        image[top : top + rows, left : left + columns] = block[:rows, :columns]

    def piecemeal(top: int, left: int, side: int) -> None:
        """A damaged block in ever smaller squares, each from the coarsest level that can be read there."""
        for level in range(cut.level, -1, -1):
            with suppress(Unreadable):
                read(top, left, TileGeometry.make(slide.downsamples[: level + 1], resolution, mpp, (side, side)))
                return
        if side == MIN_BLOCK:
            unknown[top : top + side, left : left + side] = True
            return
        for down in (0, side // 2):
            for across in (0, side // 2):
                if top + down < image.shape[0] and left + across < image.shape[1]:
                    piecemeal(top + down, left + across, side // 2)

    for top in range(0, image.shape[0], OVERVIEW_BLOCK):
        for left in range(0, image.shape[1], OVERVIEW_BLOCK):
            try:
                read(top, left, cut)
            except Unreadable as wrong:
                faults.append(wrong)
                if len(faults) > MAX_DAMAGED_BLOCKS:
                    raise
                piecemeal(top, left, OVERVIEW_BLOCK)
    if unknown.all():
        raise faults[0]
    return Overview(image, (x0, y0), scale, mpp, unknown)


def tissue_mask(view: Overview) -> NDArray[np.bool_]:
    """(H, W): more saturated than Otsu's threshold, closed, and without small objects; and what is unknown, so that it is looked at."""
    from scipy import ndimage

    values = hsv_saturation(view.image)
    found = values > min(max(otsu_threshold(values), SATURATION_FLOOR), SATURATION_CEILING)
    radius = round(CLOSING_RADIUS_UM / view.mpp)
    if radius:
        away = np.arange(-radius, radius + 1)
        disk = away[:, None] ** 2 + away**2 <= radius**2
        found = ndimage.binary_closing(np.pad(found, radius), disk)[radius:-radius, radius:-radius]  # padded: the edge is no background
    labels, count = ndimage.label(found)
    areas = np.bincount(labels.ravel(), minlength=count + 1) * view.mpp**2  # um2
    areas[0] = 0
    return (areas >= MIN_TISSUE_UM2)[labels] | view.unknown


def hsv_saturation(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W): 255 (max - min) / max over the channels, as in HSV; 0 for black."""
    high, low = image.max(axis=2).astype(np.uint16), image.min(axis=2)
    return ((high - low) * 255 // np.maximum(high, 1)).astype(np.uint8)


def otsu_threshold(values: NDArray[np.uint8]) -> int:
    """The value that splits a histogram of 0-255 so that the variance between the halves is largest; at and below it is the lower half.

    Source: Otsu 1979, "A threshold selection method from gray-level histograms", eq. 18."""
    counts = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    below = np.cumsum(counts)
    above = counts.sum() - below
    mass = np.cumsum(counts * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass / below - (mass[-1] - mass) / above) ** 2
    return int(np.argmax(np.nan_to_num(between[:-1], nan=-1.0)))  # nan: one half is empty


def read_tissue_mask(path: Path, view: Overview, dimensions: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) from the user's picture of the whole slide, of any size: not 0 is tissue. Raises Unreadable when it has another shape."""
    from PIL import Image

    from encoders.ingest.decode import read_image

    try:
        mask = read_image(path).any(axis=2)
    except Unreadable as wrong:
        raise Unreadable(f"its mask {path.name} in the folder of --masks: {wrong}") from wrong
    if abs(math.log(mask.shape[1] / mask.shape[0] * dimensions[1] / dimensions[0])) > 0.05:
        raise Unreadable(f"is {dimensions[0]} x {dimensions[1]}, its mask {mask.shape[1]} x {mask.shape[0]}: another shape")
    per = mask.shape[1] / dimensions[0], mask.shape[0] / dimensions[1]  # mask pixels an L0 pixel
    height, width = view.image.shape[:2]
    (x, y), (sx, sy) = view.origin, view.scale
    box = x * per[0], y * per[1], min((x + width * sx) * per[0], mask.shape[1]), min((y + height * sy) * per[1], mask.shape[0])
    return np.asarray(Image.fromarray(mask.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST, box=box)) > 0


class MaskCoverage:
    """How much of a rectangle at L0 a mask covers, from sums of the mask; fractions of its pixels count as such."""

    def __init__(self, mask: NDArray[np.bool_], view: Overview):
        self.view = view
        self.sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)  # in whole numbers: half the memory, and exact
        np.cumsum(np.cumsum(mask, 0, np.int32), 1, out=self.sums[1:, 1:])

    def __call__(self, x: NDArray[Any], y: NDArray[Any], field: tuple[float, float]) -> NDArray[np.float64]:
        """(N,) in [0, 1] for the rectangles of one size whose corners are the L0 points (x, y)."""
        (ox, oy), (sx, sy) = self.view.origin, self.view.scale
        left, top = (x - ox) / sx, (y - oy) / sy
        right, low = left + field[0] / sx, top + field[1] / sy
        inside = self.at(right, low) - self.at(left, low) - self.at(right, top) + self.at(left, top)
        return np.clip(inside / (field[0] / sx * field[1] / sy), 0, 1)

    def at(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
        """The sum of the mask above and left of points between its pixels."""
        rows, columns = self.sums.shape
        x, y = np.clip(x, 0, columns - 1), np.clip(y, 0, rows - 1)
        i, j = np.minimum(y.astype(int), rows - 2), np.minimum(x.astype(int), columns - 2)
        v, u = y - i, x - j
        s = self.sums
        return (1 - v) * ((1 - u) * s[i, j] + u * s[i, j + 1]) + v * ((1 - u) * s[i + 1, j] + u * s[i + 1, j + 1])
