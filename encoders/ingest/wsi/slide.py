"""A whole-slide image that OpenSlide reads: its facts, and opaque pixels from any level.

Shapes: H, W of a region in pixels of its level; L0 means pixels of the largest level.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.jpeg_tiles import JpegTiles, open_jpeg_tiles

TILE_CACHE_BYTES = 16 << 20  # bytes of decoded tiles a process keeps; row by row, more gains nothing
CHECK_POSITIONS, CHECK_SIDE = (
    (0.25, 0.5, 0.75),
    256,
)  # where, as shares of a level, and how large the regions are that are compared before it is trusted


class Slide:
    """An open slide. It can be neither pickled nor shared: every process opens its own.

    icc: turn the colours from the slide's profile into sRGB, by one transform for the whole slide."""

    def __init__(self, path: str | Path, icc: bool = False):
        """Raises Unreadable when OpenSlide cannot open it."""
        self.path = Path(path)
        self._open()
        self.properties: Mapping[str, str] = dict(self._slide.properties)
        self.downsamples = tuple(map(float, self._slide.level_downsamples))  # never cut to whole numbers: 3.997 is not 3
        self.dimensions: tuple[int, int] = self._slide.dimensions  # (W, H) at L0
        self.bounds = scanned_bounds(self.properties, self.dimensions)
        self.background = "#" + self.properties.get("openslide.background-color", "ffffff")
        self.levels: tuple[tuple[int, int], ...] = tuple(self._slide.level_dimensions)  # (W, H) of each
        self._direct: dict[int, JpegTiles | None] = {}  # by level, where its tiles are read without OpenSlide
        self._transform = self._profile() if icc else None
        self.icc = "to sRGB" if self._transform else "no profile" if icc else "not applied"  # what was done about colour

    def _open(self) -> None:
        import openslide

        if not os.path.exists(self.path):
            raise Unreadable("there is no such file")
        if not os.path.getsize(self.path):
            raise Unreadable("is empty (0 bytes)")
        try:
            self._slide = openslide.OpenSlide(self.path)
        except openslide.OpenSlideUnsupportedFormatError:
            raise Unreadable(
                "is cut off, or of a format that OpenSlide does not read; a plain image becomes a slide by"
                " `vips tiffsave IN OUT.tiff --tile --pyramid --compression jpeg`"
            ) from None
        except openslide.OpenSlideError as wrong:
            raise Unreadable(f"cannot be opened: {wrong}") from wrong
        self._slide.set_cache(openslide.OpenSlideCache(TILE_CACHE_BYTES))

    def close(self) -> None:
        self._slide.close()
        for tiles in self._direct.values():
            if tiles:
                tiles.close()
        self._direct = {}

    @property
    def quickhash(self) -> str:
        """OpenSlide's hash of the file's structure and smallest level; "" where it has none."""
        return self.properties.get("openslide.quickhash-1", "")

    def _profile(self) -> Any:
        from PIL import ImageCms

        profile = self._slide.color_profile
        return ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), "RGB", "RGB") if profile else None

    def read(self, x: int, y: int, level: int, width: int, height: int, nearest: bool = False) -> Any:
        """Pillow RGB image (H, W) of `level`, its corner at the L0 pixel (x, y); nothing scanned is the slide's background colour.

        nearest: the corner stands for the pixel of the level next to it. L0 counts whole pixels, so a level that is 4.0003 times smaller is
        never met exactly, and OpenSlide then interpolates: a tenth of the sharpness is lost, of each tile another part.
        Raises Unreadable when the file is damaged there."""
        from PIL import Image

        if not 0 <= level < len(self.downsamples):
            raise ValueError(f"level {level} of {len(self.downsamples)}")  # OpenSlide would answer with a transparent region
        pixels = self._directly(x, y, level, width, height, nearest)
        image = self._composited(x, y, level, width, height) if pixels is None else Image.fromarray(pixels)
        if self._transform:
            from PIL import ImageCms

            ImageCms.applyTransform(image, self._transform, inPlace=True)
        return image

    def _directly(self, x: int, y: int, level: int, width: int, height: int, nearest: bool = False) -> Any:
        """(H, W, 3) without OpenSlide; None where that cannot be."""
        if level not in self._direct:
            self._direct[level] = self._trusted(level)
        tiles, downsample = self._direct[level], self.downsamples[level]
        left, top = round(x / downsample), round(y / downsample)
        off = max(abs(x / downsample - left), abs(y / downsample - top))
        near = off == 0 or (nearest and off <= 0.5 / downsample + 1e-6)  # what rounding to whole pixels of L0 moves at most
        return tiles.region(left, top, width, height) if tiles and near else None

    def _trusted(self, level: int) -> JpegTiles | None:
        """The level's tiles, where OpenSlide says the same of SAMPLES of it; None where they are not what they seem, or none can be read.

        The samples are the file's own, not what happens to be read first: a slide that is gone on with must be read as it was begun."""
        tiles = open_jpeg_tiles(self.path, self.properties.get("openslide.vendor", ""), self.levels[level], TILE_CACHE_BYTES)
        if tiles is None:
            return None
        told = [same for share in CHECK_POSITIONS if (same := self._same(tiles, level, share)) is not None]
        if told and all(told):
            return tiles
        tiles.close()
        return None

    def _same(self, tiles: JpegTiles, level: int, share: float) -> bool | None:
        """Whether the region at that share of the level is what OpenSlide says: to the bit on a whole pixel, and between two within half
        of what a shift by a pixel would change. None where one of the two cannot read it."""
        width, height = (min(CHECK_SIDE, side) for side in self.levels[level])
        left, top = (int((side - part) * share) for side, part in zip(self.levels[level], (width, height), strict=True))
        x, y = (round(at * self.downsamples[level]) for at in (left, top))
        mine = tiles.region(left, top, width, height)
        if mine is None:
            return None
        try:
            its = np.asarray(self._composited(x, y, level, width, height), np.int16)
        except Unreadable:
            return None
        apart, *shifted = (float(np.abs(its - other).mean()) for other in (mine, np.roll(its, 1, axis=0), np.roll(its, 1, axis=1)))
        whole = (x / self.downsamples[level], y / self.downsamples[level]) == (left, top)
        return apart == 0 or (not whole and apart <= 0.5 * max(shifted))

    def _composited(self, x: int, y: int, level: int, width: int, height: int) -> Any:
        """Pillow RGB image of a region as OpenSlide reads it, on the background."""
        from PIL import Image

        region = self._region(x, y, level, width, height)
        if region.tobytes("raw", "A") == b"\xff" * (width * height):  # all of it was scanned, as nearly always
            image = region.convert("RGB")
        else:
            image = Image.new("RGB", region.size, self.background)
            image.paste(region, mask=region.getchannel("A"))
        image.info.pop("icc_profile", None)  # kilobytes that would go into every JPEG
        return image

    def _region(self, x: int, y: int, level: int, width: int, height: int) -> Any:
        """An error stays with an OpenSlide handle, so every failure is tried once more with a new one."""
        import openslide

        try:
            return self._slide.read_region((x, y), level, (width, height))
        except openslide.OpenSlideError:
            self._slide.close()
            self._open()
        try:
            return self._slide.read_region((x, y), level, (width, height))
        except openslide.OpenSlideError as wrong:
            self._slide.close()
            self._open()  # so that what comes next is judged by itself
            raise Unreadable(f"is damaged at ({x}, {y}) of level {level}: {wrong}") from wrong


def scanned_bounds(properties: Mapping[str, str], dimensions: tuple[int, int]) -> tuple[int, int, int, int]:
    """(x, y, W, H) at L0 of what was scanned: some scanners describe a canvas much larger than that."""
    x, y = (int(properties.get(f"openslide.bounds-{axis}", 0)) for axis in "xy")
    width = int(properties.get("openslide.bounds-width", dimensions[0] - x))
    height = int(properties.get("openslide.bounds-height", dimensions[1] - y))
    return x, y, min(width, dimensions[0] - x), min(height, dimensions[1] - y)
