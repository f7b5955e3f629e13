"""Tissue detection: an overview of the slide at a fixed resolution, and a mask of the tissue.

Shapes: H, W of overview and mask.
"""

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.glass import Glass, find_glass, stained_mask
from encoders.ingest.wsi.mpp import Resolution
from encoders.ingest.wsi.slide import Slide
from encoders.ingest.wsi.tile_geometry import TileGeometry
from encoders.runtime.arrays import BoolArray, FloatArray

OVERVIEW_BLOCK = 64  # pixels of the overview that are read at a time, because a slide with a single level does not fit in memory
MIN_BLOCK = 8  # pixels, side of the smallest square into which a damaged block is divided
MAX_DAMAGED_BLOCKS = 64  # a slide with more damaged blocks is unreadable
CLOSING_RADIUS_UM = 32.0  # gaps between cells and fibres belong to the tissue
MIN_TISSUE_UM2 = 20_000.0  # a square of 140 um; smaller objects are dust


@dataclass(frozen=True)
class Overview:
    """A small image of the scanned area; each of its pixels covers `scale` L0 pixels."""

    image: NDArray[np.uint8]  # (H, W, 3)
    origin: tuple[int, int]  # L0 (x, y) of its corner
    scale: tuple[float, float]  # L0 pixels per pixel, along x and y
    mpp: float  # micrometres per pixel
    damaged: BoolArray  # (H, W): pixels that cannot be read


def read_overview(slide: Slide, resolution: Resolution, mpp: float) -> Overview:
    """The scanned area at `mpp` micrometres per pixel, or at L0 if that is coarser; read in blocks.

    Damaged blocks are read from a finer level if possible. Raises Unreadable if all of the slide, or more than MAX_DAMAGED_BLOCKS blocks,
    are damaged."""
    mpp = max(mpp, resolution.x, resolution.y)
    scale = mpp / resolution.x, mpp / resolution.y
    x0, y0, width, height = slide.bounds
    cut = TileGeometry.for_resolution(slide.downsamples, resolution, mpp, (OVERVIEW_BLOCK, OVERVIEW_BLOCK))
    image = np.full((math.ceil(height / scale[1]), math.ceil(width / scale[0]), 3), 255, np.uint8)
    damaged = np.zeros(image.shape[:2], bool)
    errors: list[Unreadable] = []

    def read(top: int, left: int, by: TileGeometry) -> None:
        block = np.asarray(by.read(slide, x0 + round(left * scale[0]), y0 + round(top * scale[1])))
        rows, columns = image[top : top + len(block), left : left + len(block)].shape[:2]
        image[top : top + rows, left : left + columns] = block[:rows, :columns]

    def read_parts(top: int, left: int, side: int) -> None:
        """Reads a damaged block in ever smaller squares, each from the coarsest level that can be read there."""
        for level in range(cut.level, -1, -1):
            with suppress(Unreadable):
                read(top, left, TileGeometry.for_resolution(slide.downsamples[: level + 1], resolution, mpp, (side, side)))
                return
        if side == MIN_BLOCK:
            damaged[top : top + side, left : left + side] = True
            return
        for down in (0, side // 2):
            for across in (0, side // 2):
                if top + down < image.shape[0] and left + across < image.shape[1]:
                    read_parts(top + down, left + across, side // 2)

    for top in range(0, image.shape[0], OVERVIEW_BLOCK):
        for left in range(0, image.shape[1], OVERVIEW_BLOCK):
            try:
                read(top, left, cut)
            except Unreadable as error:
                errors.append(error)
                if len(errors) > MAX_DAMAGED_BLOCKS:
                    raise
                read_parts(top, left, OVERVIEW_BLOCK)
    if damaged.all():
        raise errors[0]
    return Overview(image, (x0, y0), scale, mpp, damaged)


def tissue_mask(view: Overview, glass: Glass | None = None) -> BoolArray:
    """(H, W): pixels more saturated than the glass, after closing and without small objects; and damaged pixels, which are kept.

    The reference is the glass, not the strongest stain of the slide: a pale core is found beside a dark one.

    glass: None: found in the overview."""
    glass = glass or find_glass(view.image)
    return clean_tissue_mask(stained_mask(view.image, glass), view)


def clean_tissue_mask(mask: BoolArray, view: Overview) -> BoolArray:
    """(H, W): the mask, closed by CLOSING_RADIUS_UM, without objects below MIN_TISSUE_UM2; and damaged pixels."""
    from scipy import ndimage

    radius = round(CLOSING_RADIUS_UM / view.mpp)
    if radius:
        away = np.arange(-radius, radius + 1)
        disk = away[:, None] ** 2 + away**2 <= radius**2
        mask = ndimage.binary_closing(np.pad(mask, radius), disk)[
            radius:-radius, radius:-radius
        ]  # padded, so that the edge does not count as background
    labels, count = ndimage.label(mask)
    areas = np.bincount(labels.ravel(), minlength=count + 1) * view.mpp**2  # um2
    areas[0] = 0
    return np.asarray((areas >= MIN_TISSUE_UM2)[labels] | view.damaged)


def read_tissue_mask(path: Path, view: Overview, dimensions: tuple[int, int]) -> BoolArray:
    """(H, W) from an image of the whole slide, of any size, where tissue is not 0. Raises Unreadable if its aspect ratio differs."""
    from PIL import Image

    from encoders.ingest.decode import read_image

    try:
        mask = read_image(path).any(axis=2)
    except Unreadable as error:
        raise Unreadable(f"its mask {path.name} in the folder of --masks: {error}") from error
    if abs(math.log(mask.shape[1] / mask.shape[0] * dimensions[1] / dimensions[0])) > 0.05:
        raise Unreadable(f"is {dimensions[0]} x {dimensions[1]}, its mask {mask.shape[1]} x {mask.shape[0]}: the aspect ratios differ")
    per = mask.shape[1] / dimensions[0], mask.shape[0] / dimensions[1]  # mask pixels per L0 pixel
    height, width = view.image.shape[:2]
    (x, y), (sx, sy) = view.origin, view.scale
    box = x * per[0], y * per[1], min((x + width * sx) * per[0], mask.shape[1]), min((y + height * sy) * per[1], mask.shape[0])
    return np.asarray(Image.fromarray(mask.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST, box=box)) > 0


class MaskCoverage:
    """The share of a rectangle at L0 that a mask covers, from an integral image. Parts of pixels of the mask count by area."""

    def __init__(self, mask: BoolArray, view: Overview):
        self.view = view
        self.sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)  # integers are exact and need half the memory
        np.cumsum(np.cumsum(mask, 0, np.int32), 1, out=self.sums[1:, 1:])

    def __call__(self, x: NDArray[np.number], y: NDArray[np.number], field: tuple[float, float]) -> FloatArray:
        """(N,) in [0, 1], for rectangles of one size with corners at the L0 points (x, y)."""
        (ox, oy), (sx, sy) = self.view.origin, self.view.scale
        left, top = (x - ox) / sx, (y - oy) / sy
        right, low = left + field[0] / sx, top + field[1] / sy
        inside = self.integral_at(right, low) - self.integral_at(left, low) - self.integral_at(right, top) + self.integral_at(left, top)
        return np.clip(inside / (field[0] / sx * field[1] / sy), 0, 1)

    def integral_at(self, x: NDArray[np.number], y: NDArray[np.number]) -> FloatArray:
        """The sum of the mask above and to the left of each point, interpolated between pixels."""
        rows, columns = self.sums.shape
        x, y = np.clip(x, 0, columns - 1), np.clip(y, 0, rows - 1)
        i, j = np.minimum(y.astype(int), rows - 2), np.minimum(x.astype(int), columns - 2)
        v, u = y - i, x - j
        s = self.sums
        return np.asarray((1 - v) * ((1 - u) * s[i, j] + u * s[i, j + 1]) + v * ((1 - u) * s[i + 1, j] + u * s[i + 1, j + 1]))
