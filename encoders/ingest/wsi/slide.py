"""A whole-slide image that OpenSlide reads: its properties, and opaque pixels from any level.

Shapes: H, W of a region in pixels of its level; L0 means pixels of the largest level.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.jpeg2000_tiles import open_jpeg2000_tiles
from encoders.ingest.wsi.jpeg_tiles import JpegTiles, open_jpeg_tiles

if TYPE_CHECKING:
    from PIL import Image, ImageCms

TILE_CACHE_BYTES = 16 << 20  # bytes of decoded tiles per process; tiles are read row by row, so a larger cache has no benefit
# Position, as a share of the level, and side in pixels of the regions that are compared with OpenSlide before tiles are read directly.
CHECK_POSITIONS, CHECK_SIDE = (0.25, 0.5, 0.75), 256


class Slide:
    """An open slide. It cannot be pickled or shared: every process opens its own.

    icc: convert the colours from the profile of the slide to sRGB.  accept_damaged: read JPEG tiles about which the decoder warns."""

    def __init__(self, path: str | Path, icc: bool = False, accept_damaged: bool = False):
        """Raises Unreadable if OpenSlide cannot open the file."""
        self.path = Path(path)
        self._open()
        self.properties: Mapping[str, str] = dict(self._slide.properties)
        self.downsamples = tuple(map(float, self._slide.level_downsamples))  # never rounded: 3.997 is not 4
        self.dimensions: tuple[int, int] = self._slide.dimensions  # (W, H) at L0
        self.bounds = scanned_bounds(self.properties, self.dimensions)
        self.background = "#" + self.properties.get("openslide.background-color", "ffffff")
        self.levels: tuple[tuple[int, int], ...] = tuple(self._slide.level_dimensions)  # (W, H) of each
        self._tiles: dict[int, JpegTiles | None] = {}  # by level; None: it has no JPEG or JPEG 2000 tiles whose place is known
        self._direct: dict[int, JpegTiles | None] = {}  # by level; None: tiles are read by OpenSlide
        self._accept_damaged, self._damage = accept_damaged, ""
        self._transform = self._build_transform() if icc else None
        self.icc = "to sRGB" if self._transform else "no profile" if icc else "not applied"  # what was done with the colours

    def _open(self) -> None:
        import openslide

        if not os.path.exists(self.path):
            raise Unreadable("there is no such file")
        try:
            self._slide = openslide.OpenSlide(self.path)
        except openslide.OpenSlideUnsupportedFormatError:
            if not os.path.getsize(self.path):  # asked only now: MIRAX has its pixels in other files
                raise Unreadable("is empty (0 bytes)") from None
            raise Unreadable(
                "is truncated, or has a format that OpenSlide does not read; convert a plain image to a slide with"
                " `vips tiffsave IN OUT.tiff --tile --pyramid --compression jpeg`"
            ) from None
        except openslide.OpenSlideError as error:
            raise Unreadable(f"cannot be opened: {error}") from error
        self._slide.set_cache(openslide.OpenSlideCache(TILE_CACHE_BYTES))

    def close(self) -> None:
        self._slide.close()
        for tiles in self._tiles.values():
            if tiles:
                tiles.close()
        self._tiles, self._direct = {}, {}

    @property
    def quickhash(self) -> str:
        """Hash by OpenSlide of the structure of the file and its smallest level; "" if there is none."""
        return self.properties.get("openslide.quickhash-1", "")

    def _build_transform(self) -> "ImageCms.ImageCmsTransform | None":
        """The transform from the profile of the slide to sRGB; None without a profile."""
        from PIL import ImageCms

        profile = self._slide.color_profile
        return ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), "RGB", "RGB") if profile else None

    def read(self, x: int, y: int, level: int, width: int, height: int, nearest: bool = False) -> "Image.Image":
        """Pillow RGB image (H, W) of `level` with its corner at the L0 pixel (x, y); unscanned areas have the background colour.

        nearest: use the nearest whole pixel of the level. L0 positions are whole numbers, so they rarely fall on a whole pixel of a level
        that is 4.0003 times smaller. OpenSlide then interpolates, which costs up to a tenth of the sharpness, differently for every tile.
        Raises Unreadable if the file is damaged there."""
        from PIL import Image

        if not 0 <= level < len(self.downsamples):
            raise ValueError(f"level {level} of {len(self.downsamples)}")  # OpenSlide would return a transparent region
        pixels = self._read_direct(x, y, level, width, height, nearest)
        if pixels is None:
            self._check_tiles(x, y, level, width, height)
        image = self._read_composited(x, y, level, width, height) if pixels is None else Image.fromarray(pixels)
        if self._transform:
            from PIL import ImageCms

            ImageCms.applyTransform(image, self._transform, inPlace=True)
        return image

    def take_damage(self) -> str:
        """The words of the decoder about damage that was read since the last call; "" if there was none."""
        words, self._damage = self._damage, ""
        return words

    def _check_tiles(self, x: int, y: int, level: int, width: int, height: int) -> None:
        """Raises Unreadable if a JPEG tile of a region is damaged, or notes it if damage is accepted: OpenSlide would decode it."""
        tiles, downsample = self._open_tiles(level), self.downsamples[level]
        left, top = math.floor(x / downsample), math.floor(y / downsample)
        between = int((left * downsample, top * downsample) != (x, y))  # then a pixel more is interpolated
        words = tiles.find_damage(left, top, width + between, height + between) if tiles else ""
        if words and not self._accept_damaged:
            raise Unreadable(f"is damaged at ({x}, {y}) of level {level}: damaged JPEG: {words}")
        self._damage = self._damage or (f"damaged JPEG: {words}" if words else "")

    def _open_tiles(self, level: int) -> JpegTiles | None:
        if level not in self._tiles:
            vendor = self.properties.get("openslide.vendor", "")
            place = self.path, vendor, self.levels[level], TILE_CACHE_BYTES
            self._tiles[level] = open_jpeg_tiles(*place) or open_jpeg2000_tiles(*place)
        return self._tiles[level]

    def _read_direct(self, x: int, y: int, level: int, width: int, height: int, nearest: bool = False) -> NDArray[np.uint8] | None:
        """(H, W, 3) without OpenSlide; None if this is not possible."""
        if level not in self._direct:
            self._direct[level] = self._verified_tiles(level)
        tiles, downsample = self._direct[level], self.downsamples[level]
        left, top = round(x / downsample), round(y / downsample)
        off = max(abs(x / downsample - left), abs(y / downsample - top))
        near = off == 0 or (nearest and off <= 0.5 / downsample + 1e-6)  # the largest shift by rounding to whole pixels of L0
        return tiles.read_region(left, top, width, height) if tiles and near else None

    def _verified_tiles(self, level: int) -> JpegTiles | None:
        """The tiles of a level if regions at CHECK_POSITIONS agree with OpenSlide; None if they do not, or if none can be read.

        The positions are fixed, not those that are read first, so that a resumed ingest reads the slide in the same way."""
        tiles = self._open_tiles(level)
        if tiles is None:
            return None
        checks = [agrees for share in CHECK_POSITIONS if (agrees := self._agrees_with_openslide(tiles, level, share)) is not None]
        return tiles if checks and all(checks) else None

    def _agrees_with_openslide(self, tiles: JpegTiles, level: int, share: float) -> bool | None:
        """Whether the region at that share of the level agrees with OpenSlide; None if one of the two cannot read it.

        On a whole pixel, both must be bit-identical. Between pixels, the difference must be at most half of the change by a shift of one
        pixel."""
        width, height = (min(CHECK_SIDE, side) for side in self.levels[level])
        left, top = (int((side - part) * share) for side, part in zip(self.levels[level], (width, height), strict=True))
        x, y = (round(at * self.downsamples[level]) for at in (left, top))
        direct = tiles.read_region(left, top, width, height)
        if direct is None:
            return None
        try:
            reference = np.asarray(self._read_composited(x, y, level, width, height), np.int16)
        except Unreadable:
            return None
        others = direct, np.roll(reference, 1, axis=0), np.roll(reference, 1, axis=1)
        difference, *shifted = (float(np.abs(reference - other).mean()) for other in others)
        whole = (x / self.downsamples[level], y / self.downsamples[level]) == (left, top)
        return difference == 0 or (not whole and difference <= 0.5 * max(shifted))

    def _read_composited(self, x: int, y: int, level: int, width: int, height: int) -> "Image.Image":
        """Pillow RGB image of a region as OpenSlide reads it, on the background."""
        from PIL import Image

        region = self._read_region(x, y, level, width, height)
        if region.tobytes("raw", "A") == b"\xff" * (width * height):  # all of it was scanned, the usual case
            image = region.convert("RGB")
        else:
            image = Image.new("RGB", region.size, self.background)
            image.paste(region, mask=region.getchannel("A"))
        image.info.pop("icc_profile", None)  # kilobytes, which would be saved in every JPEG
        return image

    def _read_region(self, x: int, y: int, level: int, width: int, height: int) -> "Image.Image":
        """Pillow RGBA image. An OpenSlide handle keeps its error, so a failure is tried once more with a new handle."""
        import openslide

        try:
            return self._slide.read_region((x, y), level, (width, height))
        except openslide.OpenSlideError:
            self._slide.close()
            self._open()
        try:
            return self._slide.read_region((x, y), level, (width, height))
        except openslide.OpenSlideError as error:
            self._slide.close()
            self._open()  # the next region gets a handle without error
            raise Unreadable(f"is damaged at ({x}, {y}) of level {level}: {error}") from error


def scanned_bounds(properties: Mapping[str, str], dimensions: tuple[int, int]) -> tuple[int, int, int, int]:
    """(x, y, W, H) at L0 of the scanned area: some scanners declare a much larger canvas."""
    x, y = (int(properties.get(f"openslide.bounds-{axis}", 0)) for axis in "xy")
    width = int(properties.get("openslide.bounds-width", dimensions[0] - x))
    height = int(properties.get("openslide.bounds-height", dimensions[1] - y))
    return x, y, min(width, dimensions[0] - x), min(height, dimensions[1] - y)
