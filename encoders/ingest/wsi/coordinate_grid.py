"""Tiles at the coordinates of a file of CLAM, TRIDENT or STAMP, instead of a grid on the tissue.

The file states the size of a tile at level 0, or --tile and --mpp do. Every coordinate is counted: taken, outside the slide, or duplicate.

Shapes: N tiles, H, W of overview and mask.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.mpp import Resolution
from encoders.ingest.wsi.records import CoordinateFacts, Corners
from encoders.ingest.wsi.settings import TilingSettings
from encoders.ingest.wsi.slide import Slide
from encoders.ingest.wsi.slide_item import SlideItem
from encoders.ingest.wsi.tile_geometry import TileGeometry
from encoders.ingest.wsi.tissue import Overview
from encoders.runtime.arrays import BoolArray, IntArray
from encoders.runtime.errors import InputError
from encoders.store.tile_coordinates import Pair, TileScale, read_coordinate_file

OUTSIDE_SLIDE, DUPLICATE = "outside the slide", "duplicate coordinate"
# Relative: tools choose the size of a tile by the magnification, so 0.46 um counts as 20x. The index holds the real value.
FILE_MPP_TOLERANCE = 0.1
SIZE_OF_SLIDE_TOLERANCE = 0.01  # relative: the size of a level times its downsample is not exactly that of level 0


@dataclass(frozen=True)
class CoordinateGrid:
    """Where the tiles of a slide stand.  x, y: (N,) L0 corners, in the order of the file.  mpp: micrometres per pixel of a tile."""

    cut: TileGeometry
    x: IntArray
    y: IntArray
    mpp: float
    facts: CoordinateFacts
    rejected: dict[str, Corners] = field(default_factory=dict)  # by reason

    def covered(self, view: Overview) -> BoolArray:
        """(H, W): the pixels of the overview that tiles cover."""
        mask = np.zeros(view.image.shape[:2], bool)
        (ox, oy), (sx, sy) = view.origin, view.scale
        for x, y in zip(self.x.tolist(), self.y.tolist(), strict=True):
            top, left = max(0, round((y - oy) / sy)), max(0, round((x - ox) / sx))
            mask[
                top : max(top + 1, round((y - oy + self.cut.field[1]) / sy)), left : max(left + 1, round((x - ox + self.cut.field[0]) / sx))
            ] = True
        return mask


def read_coordinate_grid(item: SlideItem, slide: Slide, resolution: Resolution, settings: TilingSettings) -> CoordinateGrid:
    """The tiles at the coordinates of the slide's file.

    Raises Unreadable with the reason if the file does not fit the slide or the settings."""
    assert item.coords
    try:
        corners, scale = read_coordinate_file(item.coords, (resolution.x, resolution.y))
        side = scale.side_on(slide.downsamples)
    except InputError as error:
        raise Unreadable(f"its coordinates {item.coords.name}: {error}") from error
    if not len(corners):
        raise Unreadable(f"its file {item.coords.name} holds no coordinates")
    check_same_slide(item.coords.name, scale, slide)
    size = settings.tile, settings.tile
    mpp = settings.mpp if side is None else check_resolution(item.coords.name, side, resolution, settings)
    limit = settings.max_upscale
    if side is None:
        cut = TileGeometry.for_resolution(slide.downsamples, resolution, mpp, size, limit)
    else:
        cut = TileGeometry.for_field(slide.downsamples, side, size, limit, max(resolution.x, resolution.y))
    x, y = corners[:, 0], corners[:, 1]
    width, height = slide.dimensions
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    first = np.zeros(len(corners), bool)
    first[np.unique(corners, axis=0, return_index=True)[1]] = True
    taken = inside & first
    if not inside.any():
        sides = f"{width} x {height} pixels"
        raise Unreadable(
            f"has {sides}, and all {len(x)} coordinates of {item.coords.name} are outside, e.g. ({x[0]}, {y[0]}); is it the same slide?"
        )
    over = taken & ((x + cut.field[0] > width + 0.5) | (y + cut.field[1] > height + 0.5))
    reasons = {OUTSIDE_SLIDE: ~inside, DUPLICATE: inside & ~first}
    facts: CoordinateFacts = {"file": item.coords.name, "given": len(x), "over_edge": int(over.sum())}
    if side is not None:
        facts["side"] = list(side)
    rejected = {reason: corners[rows].tolist() for reason, rows in reasons.items() if rows.any()}
    return CoordinateGrid(replace(cut, snap=False), x[taken], y[taken], mpp, facts, rejected)


def check_same_slide(file: str, scale: TileScale, slide: Slide) -> None:
    """Raises Unreadable if the file states another size of the slide."""
    if scale.dimensions and any(abs(a / b - 1) > SIZE_OF_SLIDE_TOLERANCE for a, b in zip(scale.dimensions, slide.dimensions, strict=True)):
        ours, theirs = "{} x {}".format(*slide.dimensions), "{:.0f} x {:.0f}".format(*scale.dimensions)
        raise Unreadable(f"has {ours} pixels, and {file} was made for a slide of {theirs}")


def check_resolution(file: str, side: Pair, resolution: Resolution, settings: TilingSettings) -> float:
    """Micrometres per pixel of a tile of the file. Raises Unreadable, naming the options that fit, if that is not about --mpp."""
    mpp = side[0] * resolution.x / settings.tile
    if abs(mpp / settings.mpp - 1) > FILE_MPP_TOLERANCE:
        fits = round(side[0] * resolution.x / settings.mpp)
        has = f"{file} has tiles of {side[0]:g} pixels at level 0, which are {mpp:.4g} um per pixel at --tile {settings.tile}"
        raise Unreadable(f"does not fit --mpp {settings.mpp:g}: {has}; pass --mpp {mpp:.4g}, or --tile {fits}")
    return mpp
