"""Which tiles of a slide are worth reading: the grid, less what has little tissue, lies outside the regions, or was not drawn.

Shapes: N tiles, H, W of overview and mask.
"""

import io
import json
import zlib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.mpp import Resolution, find_resolution
from encoders.ingest.wsi.regions import allowed_mask, read_regions
from encoders.ingest.wsi.settings import TilingSettings
from encoders.ingest.wsi.slide import Slide
from encoders.ingest.wsi.slide_item import SlideItem
from encoders.ingest.wsi.tile_geometry import TileGeometry
from encoders.ingest.wsi.tissue import MaskCoverage, Overview, read_overview, read_tissue_mask, tissue_mask
from encoders.runtime.files import atomic_write
from encoders.runtime.random import Purpose, generator
from encoders.stain.normalise import StainLook, measure_stain

MPP_TOLERANCE = 0.05  # a resolution given by hand and the slide's own may differ by so much without a word
STAIN_TILES = 16  # tiles that the stains of a slide are measured on
MIN_REGION_SHARE = 0.5  # share of a tile that must lie in the regions where no tissue is asked for
LITTLE_TISSUE, OUTSIDE_REGIONS, NOT_SAMPLED = "little tissue", "outside the regions", "not drawn"


@dataclass(frozen=True)
class TilePlan:
    """What reading a slide needs to know; kept in a file while the slide is worked on."""

    cut: TileGeometry
    facts: dict[str, Any]  # about the slide, for its store
    x: NDArray[np.int64]  # (N,) L0 corners of the tiles to read, row by row
    y: NDArray[np.int64]
    tissue: NDArray[np.float32]  # (N,) share
    rejected: dict[str, list[list[int]]]  # reason to L0 corners
    overview: bytes  # JPEG (H, W)
    mask: bytes  # PNG (H, W)

    def save(self, path: Path) -> None:
        cut = {"level": self.cut.level, "downsample": self.cut.downsample, "size": self.cut.size, "span": self.cut.span}
        text = json.dumps({"cut": cut | {"shrink": self.cut.shrink}, "facts": self.facts, "rejected": self.rejected})
        arrays: dict[str, Any] = {"x": self.x, "y": self.y, "tissue": self.tissue, "text": np.array(text)}
        arrays |= {"overview": np.frombuffer(self.overview, np.uint8), "mask": np.frombuffer(self.mask, np.uint8)}
        with atomic_write(path) as part, part.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> "TilePlan":
        with np.load(path) as file:
            text = json.loads(str(file["text"]))
            cut: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in text["cut"].items()}
            overview, mask = file["overview"].tobytes(), file["mask"].tobytes()
            return cls(TileGeometry(**cut), text["facts"], file["x"], file["y"], file["tissue"], text["rejected"], overview, mask)


def plan_tiles(item: SlideItem, settings: TilingSettings) -> TilePlan:
    """The plan of a slide. Raises Unreadable when the slide cannot be tiled, with the reason."""
    if settings.include and not item.regions:
        raise Unreadable(f"has no {item.name}.geojson in the folder of --regions, and --include asks for regions")
    slide = Slide(item.path, settings.icc)
    try:
        found = find_resolution(slide.properties, item.mpp)
        cut = TileGeometry.make(slide.downsamples, found, settings.mpp, (settings.tile, settings.tile))
        view = read_overview(slide, found, settings.tissue_mpp)
        mask = read_tissue_mask(item.mask, view, slide.dimensions) if item.mask else tissue_mask(view)
        x, y = tile_grid(slide, cut, settings, found)
        shares = MaskCoverage(mask, view)(x, y, cut.field)
        enough, inside, drawn = shares >= settings.min_tissue, np.ones(len(x), bool), np.ones(len(x), bool)
        if item.regions:
            drawing = allowed_mask(read_regions(item.regions), settings.include, settings.exclude, view)
            mask = mask & drawing
            shares = MaskCoverage(mask, view)(x, y, cut.field)
            drawn_in = MaskCoverage(drawing, view)(x, y, cut.field)
            inside = (shares >= settings.min_tissue) & (drawn_in >= (settings.min_tissue or MIN_REGION_SHARE))
        left = np.flatnonzero(enough & inside)
        if settings.max_tiles and len(left) > settings.max_tiles:
            rng = generator(settings.seed, Purpose.TILES, zlib.crc32(item.name.encode()))
            drawn[left] = False
            drawn[rng.choice(left, settings.max_tiles, replace=False)] = True
        where = np.stack([x, y], 1)
        reasons = {LITTLE_TISSUE: ~enough, OUTSIDE_REGIONS: enough & ~inside, NOT_SAMPLED: enough & inside & ~drawn}
        keep = enough & inside & drawn
        facts = slide_facts(slide, item, found, cut)
        if settings.normalise and keep.any():
            facts["stain"] = measure_slide_stain(slide, cut, settings.normalise, where[keep])
        rejected = {reason: where[rows].tolist() for reason, rows in reasons.items() if rows.any()}
        return TilePlan(cut, facts, x[keep], y[keep], shares[keep].astype(np.float32), rejected, *encode_pictures(view, mask))
    finally:
        slide.close()


def tile_grid(slide: Slide, cut: TileGeometry, settings: TilingSettings, found: Resolution) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(N,) L0 x and y of the corners of all tiles that fit, row by row. Raises Unreadable when none does."""
    x0, y0, width, height = slide.bounds
    xs = cut.positions(x0, width, 0, settings.overlap)
    ys = cut.positions(y0, height, 1, settings.overlap)
    if not xs or not ys:
        sides = f"{width * found.x:.0f} x {height * found.y:.0f} um, a tile has {settings.tile * settings.mpp:.0f} um"
        raise Unreadable(f"is smaller than one tile: {sides}; choose a smaller --tile")
    y, x = np.meshgrid(np.array(ys, np.int64), np.array(xs, np.int64), indexing="ij")
    return x.ravel(), y.ravel()


def measure_slide_stain(slide: Slide, cut: TileGeometry, how: str, where: NDArray[np.int64]) -> StainLook:
    """The look of the slide, from tiles evenly spaced among those to read. Raises Unreadable when it has no two stains."""
    seen = []
    for x, y in where[np.linspace(0, len(where) - 1, min(STAIN_TILES, len(where))).astype(int)].tolist():
        with suppress(Unreadable):  # a damaged tile is counted when it is its turn
            seen.append(np.asarray(cut.read(slide, x, y))[::2, ::2].reshape(-1, 3))
    look = measure_stain(how, np.concatenate(seen)) if seen else None
    if look is None:
        raise Unreadable(f"shows no two stains in {len(seen)} of its tiles, which --normalise {how} needs")
    return look


def slide_facts(slide: Slide, item: SlideItem, found: Resolution, cut: TileGeometry) -> dict[str, Any]:
    """The facts of a slide that its store keeps: no path, no host, nothing from the scanner's free text."""
    return {
        "name": item.name,
        "source": item.source,
        "vendor": slide.properties.get("openslide.vendor", ""),
        "quickhash": slide.quickhash,
        "dimensions": list(slide.dimensions),
        "bounds": list(slide.bounds),
        "mpp": [found.x, found.y],
        "mpp_source": found.source,
        "oblong": found.oblong,
        **conflicting_mpp(slide, found),
        "level": cut.level,
        "downsample": cut.downsample,
        "field": list(cut.field),
        "icc": slide.icc,
    }


def conflicting_mpp(slide: Slide, found: Resolution) -> dict[str, float]:
    """`mpp_said`: what the slide says of its resolution itself, where the user said something else."""
    if found.source != "given":
        return {}
    try:
        own = find_resolution(slide.properties)
    except Unreadable:
        return {}
    return {"mpp_said": own.x} if abs(own.x / found.x - 1) > MPP_TOLERANCE and "estimated" not in own.source else {}


def encode_pictures(view: Overview, mask: NDArray[np.bool_]) -> tuple[bytes, bytes]:
    """Overview as JPEG and mask as PNG."""
    from PIL import Image

    jpeg, png = io.BytesIO(), io.BytesIO()
    Image.fromarray(view.image).save(jpeg, "JPEG", quality=85)
    Image.fromarray(mask).save(png, "PNG")
    return jpeg.getvalue(), png.getvalue()


def count_by_reason(rejected: dict[str, list[list[int]]]) -> Counter[str]:
    """Reason to number of tiles."""
    return Counter({reason: len(where) for reason, where in rejected.items()})
