"""Selects the tiles of a slide to read: the grid without tiles that have little tissue, lie outside the regions, or are not sampled.

Shapes: N tiles, H, W of overview and mask.
"""

import io
import json
import zlib
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.coordinate_grid import read_coordinate_grid
from encoders.ingest.wsi.glass import Glass, find_glass, non_glass_mask
from encoders.ingest.wsi.mpp import Resolution, find_resolution
from encoders.ingest.wsi.records import Corners, SlideFacts
from encoders.ingest.wsi.regions import allowed_mask, read_regions_to_apply
from encoders.ingest.wsi.settings import TilingSettings
from encoders.ingest.wsi.slide import Slide
from encoders.ingest.wsi.slide_item import SlideItem
from encoders.ingest.wsi.tile_geometry import TileGeometry
from encoders.ingest.wsi.tissue import MaskCoverage, Overview, clean_tissue_mask, read_overview, read_tissue_mask, tissue_mask
from encoders.runtime.arrays import BoolArray, IntArray
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write
from encoders.runtime.random import Purpose, generator
from encoders.stain.normalise import StainLook, measure_stain

MPP_TOLERANCE = 0.05  # relative difference between a given resolution and that of the slide, from which the user is warned
STAIN_TILES = 16  # number of tiles on which the stains of a slide are measured
MIN_REGION_SHARE = 0.5  # share of a tile that must lie in the regions if --min-tissue is 0
LITTLE_TISSUE, OUTSIDE_REGIONS, NOT_SAMPLED = "little tissue", "outside the regions", "not drawn"


class SavedGeometry(TypedDict):
    """A TileGeometry as JSON."""

    level: int
    downsample: float
    size: list[int]
    span: list[float]
    shrink: list[int]
    snap: NotRequired[bool]  # earlier versions: True


class SavedPlan(TypedDict):
    """The part of a TilePlan that is saved as JSON."""

    cut: SavedGeometry
    facts: SlideFacts
    rejected: dict[str, Corners]


@dataclass(frozen=True)
class TilePlan:
    """Everything that is needed to read the tiles of a slide; saved in a file during the ingest."""

    cut: TileGeometry
    facts: SlideFacts
    x: IntArray  # (N,) L0 corners of the tiles to read, row by row
    y: IntArray
    tissue: NDArray[np.float32]  # (N,) share of tissue
    non_glass: NDArray[np.float32]  # (N,) share that is not glass, stained or not
    rejected: dict[str, Corners]  # by reason
    overview: bytes  # JPEG (H, W)
    mask: bytes  # PNG (H, W)

    def save(self, path: Path) -> None:
        """Writes the plan to `path`."""
        cut = {"level": self.cut.level, "downsample": self.cut.downsample, "size": self.cut.size, "span": self.cut.span}
        text = json.dumps({"cut": cut | {"shrink": self.cut.shrink, "snap": self.cut.snap}, "facts": self.facts, "rejected": self.rejected})
        arrays: dict[str, Any] = {"x": self.x, "y": self.y, "tissue": self.tissue, "non_glass": self.non_glass, "text": np.array(text)}
        arrays |= {"overview": np.frombuffer(self.overview, np.uint8), "mask": np.frombuffer(self.mask, np.uint8)}
        with atomic_write(path) as part, part.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> "TilePlan":
        """The plan that `save` wrote. Raises InputError if an earlier version wrote it."""
        with np.load(path) as file:
            if "non_glass" not in file:
                raise InputError(f"{path.parent} was started by an earlier version of isograft: remove it, and run again")
            text: SavedPlan = json.loads(str(file["text"]))
            saved = text["cut"]
            size, span, shrink = saved["size"], saved["span"], saved["shrink"]
            sides = (size[0], size[1]), (span[0], span[1]), (shrink[0], shrink[1])
            cut = TileGeometry(saved["level"], saved["downsample"], *sides, saved.get("snap", True))
            overview, mask = file["overview"].tobytes(), file["mask"].tobytes()
            shares = file["tissue"], file["non_glass"]
            return cls(cut, text["facts"], file["x"], file["y"], *shares, text["rejected"], overview, mask)

    @property
    def glass(self) -> Glass:
        """The glass of the slide."""
        red, green, blue = self.facts["glass"]
        return Glass((red, green, blue), self.facts["tissue_threshold"])


def plan_tiles(item: SlideItem, settings: TilingSettings) -> TilePlan:
    """The plan of a slide. Raises Unreadable with the reason if the slide cannot be tiled."""
    if item.coords_problem:
        raise Unreadable(item.coords_problem)
    if settings.include and not item.regions:
        raise Unreadable(f"has no {item.name}.geojson in the folder of --regions, but --include requires regions")
    drawn = read_regions_to_apply(item.regions, settings.include, settings.exclude) if item.regions else None
    slide = Slide(item.path, settings.icc, settings.accept_damaged)
    try:
        resolution = find_resolution(slide.properties, item.mpp)
        size = settings.tile, settings.tile
        placed = read_coordinate_grid(item, slide, resolution, settings) if item.coords else None
        cut = placed.cut if placed else TileGeometry.for_resolution(slide.downsamples, resolution, settings.mpp, size, settings.max_upscale)
        view = read_overview(slide, resolution, settings.tissue_mpp)
        glass = find_glass(view.image, settings.tissue_threshold)
        mask = placed.covered(view) if placed else find_tissue(item, settings, view, glass, slide.dimensions)
        x, y = (placed.x, placed.y) if placed else tile_grid(slide, cut, settings, resolution)
        shares = MaskCoverage(mask, view)(x, y, cut.field)
        enough, inside, sampled = shares >= settings.min_tissue, np.ones(len(x), bool), np.ones(len(x), bool)
        if drawn:
            allowed = allowed_mask(drawn.areas, settings.include, settings.exclude, view)
            mask = mask & allowed
            shares = MaskCoverage(mask, view)(x, y, cut.field)
            region_shares = MaskCoverage(allowed, view)(x, y, cut.field)
            inside = (shares >= settings.min_tissue) & (region_shares >= (settings.min_tissue or MIN_REGION_SHARE))
        left = np.flatnonzero(enough & inside)
        if settings.max_tiles and len(left) > settings.max_tiles:
            rng = generator(settings.seed, Purpose.TILES, zlib.crc32(item.name.encode()))
            sampled[left] = False
            sampled[rng.choice(left, settings.max_tiles, replace=False)] = True
        if placed:
            shares = np.full(len(x), np.nan)  # of tissue: unknown
        corners = np.stack([x, y], 1)
        reasons = {LITTLE_TISSUE: ~enough, OUTSIDE_REGIONS: enough & ~inside, NOT_SAMPLED: enough & inside & ~sampled}
        keep = enough & inside & sampled
        facts = slide_facts(slide, item, resolution, cut)
        other = MaskCoverage(non_glass_mask(view.image, glass), view)(x, y, cut.field)
        judged = keep | ~enough
        facts |= {"glass": list(glass.colour), "tissue_threshold": glass.threshold}
        facts |= {"non_glass": float(other[judged].sum()), "non_glass_rejected": float(other[~enough].sum())}
        if drawn:
            facts["regions"] = drawn.count_classes()
        if settings.normalise and keep.any():
            facts["stain"] = measure_slide_stain(slide, cut, settings.normalise, corners[keep])
        if placed:
            facts["coords"] = placed.facts
            if "side" in placed.facts:
                facts["tile_mpp"] = placed.mpp
        rejected = {reason: corners[rows].tolist() for reason, rows in reasons.items() if rows.any()}
        rejected |= placed.rejected if placed else {}
        measures = shares[keep].astype(np.float32), other[keep].astype(np.float32)
        return TilePlan(cut, facts, x[keep], y[keep], *measures, rejected, *encode_pictures(view, mask))
    finally:
        slide.close()


def find_tissue(item: SlideItem, settings: TilingSettings, view: Overview, glass: Glass, dimensions: tuple[int, int]) -> BoolArray:
    """(H, W): the tissue by the mask of the slide, else by the tissue model, else by the difference from the glass."""
    if item.mask:
        return read_tissue_mask(item.mask, view, dimensions)
    if settings.tissue_model is None:
        return tissue_mask(view, glass)
    if abs(view.mpp / settings.tissue_mpp - 1) > MPP_TOLERANCE:
        raise Unreadable(f"has {view.mpp:g} um per pixel, too coarse for --tissue-model at --tissue-mpp {settings.tissue_mpp:g}")
    return clean_tissue_mask(settings.tissue_model(view.image), view)


def tile_grid(slide: Slide, cut: TileGeometry, settings: TilingSettings, resolution: Resolution) -> tuple[IntArray, IntArray]:
    """(N,) each: L0 x and y of the corners of all tiles that fit, row by row. Raises Unreadable if no tile fits."""
    x0, y0, width, height = slide.bounds
    xs = cut.positions(x0, width, 0, settings.overlap)
    ys = cut.positions(y0, height, 1, settings.overlap)
    if not xs or not ys:
        sides = f"{width * resolution.x:.0f} x {height * resolution.y:.0f} um, a tile has {settings.tile * settings.mpp:.0f} um"
        raise Unreadable(f"is smaller than one tile: {sides}; pass a smaller --tile")
    y, x = np.meshgrid(np.array(ys, np.int64), np.array(xs, np.int64), indexing="ij")
    return x.ravel(), y.ravel()


def measure_slide_stain(slide: Slide, cut: TileGeometry, method: str, corners: IntArray) -> StainLook:
    """The stains of the slide, measured on evenly spaced tiles. Raises Unreadable if it has fewer than two stains."""
    pixels = []
    for x, y in corners[np.linspace(0, len(corners) - 1, min(STAIN_TILES, len(corners))).astype(int)].tolist():
        with suppress(Unreadable):  # a damaged tile is counted when it is read
            pixels.append(np.asarray(cut.read(slide, x, y))[::2, ::2].reshape(-1, 3))
    look = measure_stain(method, np.concatenate(pixels)) if pixels else None
    if look is None:
        raise Unreadable(f"has fewer than two stains in {len(pixels)} of its tiles, but --normalise {method} requires two")
    return look


def slide_facts(slide: Slide, item: SlideItem, resolution: Resolution, cut: TileGeometry) -> SlideFacts:
    """The facts of a slide that its store keeps: no absolute path, no host, no free text of the scanner."""
    facts: SlideFacts = {
        "name": item.name,
        "source": item.source,
        "vendor": slide.properties.get("openslide.vendor", ""),
        "quickhash": slide.quickhash,
        "dimensions": list(slide.dimensions),
        "bounds": list(slide.bounds),
        "mpp": [resolution.x, resolution.y],
        "mpp_source": resolution.source,
        "oblong": resolution.oblong,
        "level": cut.level,
        "downsample": cut.downsample,
        "field": list(cut.field),
        "icc": slide.icc,
    }
    if cut.upscale > 1 and cut.downsample == min(slide.downsamples):
        facts["upscale"] = cut.upscale
    own = conflicting_mpp(slide, resolution)
    if own is not None:
        facts["mpp_said"] = own
    return facts


def conflicting_mpp(slide: Slide, resolution: Resolution) -> float | None:
    """The resolution in the metadata of the slide if it differs from the one that the user gave, otherwise None."""
    if resolution.source != "given":
        return None
    try:
        own = find_resolution(slide.properties)
    except Unreadable:
        return None
    return own.x if abs(own.x / resolution.x - 1) > MPP_TOLERANCE and "estimated" not in own.source else None


def encode_pictures(view: Overview, mask: BoolArray) -> tuple[bytes, bytes]:
    """The overview as JPEG, and the mask as PNG."""
    from PIL import Image

    jpeg, png = io.BytesIO(), io.BytesIO()
    Image.fromarray(view.image).save(jpeg, "JPEG", quality=85)
    Image.fromarray(mask).save(png, "PNG")
    return jpeg.getvalue(), png.getvalue()


def count_by_reason(rejected: Mapping[str, Corners]) -> Counter[str]:
    """Reason to number of tiles."""
    return Counter({reason: len(corners) for reason, corners in rejected.items()})
