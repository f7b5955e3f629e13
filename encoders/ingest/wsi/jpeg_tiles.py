"""The pixels of a TIFF level whose tiles are JPEG, decoded straight from the file.

OpenSlide decodes a tile to ARGB, paints it by cairo, and Python turns it into RGBA and then RGB; that is most of reading. The two commonest
kinds of slide are plain tiled TIFFs, whose tiles any JPEG decoder reads: the same pixels in a third of the time. Whatever is not so plain
(a border, a missing or damaged tile) is left to OpenSlide.

Shapes: W, H of a region, w, h of a tile, in pixels of the level.
"""

import os
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

JPEG_TILE_VENDORS = ("aperio", "generic-tiff")  # of OpenSlide: tiles side by side, without overlap
TAG_WIDTH, TAG_HEIGHT, TAG_COMPRESSION, TAG_PHOTOMETRIC, TAG_SAMPLES = 256, 257, 259, 262, 277  # tags of TIFF 6.0
TAG_TILE_WIDTH, TAG_TILE_HEIGHT, TAG_TILE_OFFSETS, TAG_TILE_BYTE_COUNTS, TAG_JPEG_TABLES = 322, 323, 324, 325, 347
COMPRESSION_JPEG, PHOTOMETRIC_RGB, PHOTOMETRIC_YCBCR = 7, 2, 6
ADOBE_MARKER = (
    b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"  # then a byte: 0 for RGB, 1 for YCbCr. A tile does not say it, its directory does
)


class JpegTiles:
    """One level of one file; keeps `cache` bytes of decoded tiles."""

    def __init__(self, path: Path, directory: dict[int, Any], cache: int):
        self.size = int(directory[TAG_WIDTH]), int(directory[TAG_HEIGHT])
        self.tile = int(directory[TAG_TILE_WIDTH]), int(directory[TAG_TILE_HEIGHT])
        self.across = -(-self.size[0] // self.tile[0])
        self.offsets = np.asarray(directory[TAG_TILE_OFFSETS], np.int64).reshape(-1)
        self.counts = np.asarray(directory[TAG_TILE_BYTE_COUNTS], np.int64).reshape(-1)
        self.tables = bytes(directory.get(TAG_JPEG_TABLES, b""))[2:-2]
        self.colours = ADOBE_MARKER + bytes([int(directory[TAG_PHOTOMETRIC] == PHOTOMETRIC_YCBCR)])
        self.file = os.open(path, os.O_RDONLY)
        self.kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self.room = max(cache // (3 * self.tile[0] * self.tile[1]), 1)  # tiles

    def close(self) -> None:
        os.close(self.file)

    def region(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8] | None:
        """(H, W, 3) from the pixel (x, y) of the level; None where it is not all inside, or a tile is missing or damaged."""
        if x < 0 or y < 0 or x + width > self.size[0] or y + height > self.size[1]:
            return None
        (w, h), out = self.tile, np.empty((height, width, 3), np.uint8)
        for row in range(y // h, (y + height - 1) // h + 1):
            for column in range(x // w, (x + width - 1) // w + 1):
                tile = self.decoded(row * self.across + column)
                if tile is None:
                    return None
                left, top = column * w - x, row * h - y  # of the tile in the region
                to = slice(max(top, 0), min(top + h, height)), slice(max(left, 0), min(left + w, width))
                out[to] = tile[to[0].start - top : to[0].stop - top, to[1].start - left : to[1].stop - left]
        return out

    def decoded(self, number: int) -> NDArray[np.uint8] | None:
        """(h, w, 3) of a tile; None when it is missing, damaged or of another size."""
        import simplejpeg

        if number in self.kept:
            self.kept.move_to_end(number)
            return self.kept[number]
        data = os.pread(self.file, int(self.counts[number]), int(self.offsets[number]))
        if not data.startswith(b"\xff\xd8"):
            return None
        try:
            tile = simplejpeg.decode_jpeg(data[:2] + self.colours + self.tables + data[2:], fastdct=False, fastupsample=False)
        except ValueError:
            return None
        if tile.shape != (self.tile[1], self.tile[0], 3):
            return None
        self.kept[number] = tile
        if len(self.kept) > self.room:
            self.kept.popitem(last=False)
        return tile  # type: ignore[no-any-return]


def open_jpeg_tiles(path: Path, vendor: str, size: tuple[int, int], cache: int) -> JpegTiles | None:
    """The level of `size` (W, H) in pixels of a slide; None where it is not made of JPEG tiles, or two levels have that size."""
    if vendor not in JPEG_TILE_VENDORS:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow warns of a torn file and gives the tags it has
            found = [
                each for each in read_directories(path) if (each.get(TAG_WIDTH), each.get(TAG_HEIGHT)) == size and has_jpeg_tiles(each)
            ]
    except (OSError, SyntaxError, ValueError, TypeError, KeyError):  # what Pillow raises for a file that is no TIFF, or a torn one
        return None
    return JpegTiles(path, found[0], cache) if len(found) == 1 else None


def has_jpeg_tiles(directory: dict[int, Any]) -> bool:
    """Whether it holds tiles of three 8-bit colours as JPEG."""
    needed = {TAG_TILE_WIDTH, TAG_TILE_HEIGHT, TAG_TILE_OFFSETS, TAG_TILE_BYTE_COUNTS} <= directory.keys()
    return (
        needed
        and directory.get(TAG_COMPRESSION) == COMPRESSION_JPEG
        and directory.get(TAG_PHOTOMETRIC) in (PHOTOMETRIC_RGB, PHOTOMETRIC_YCBCR)
        and directory.get(TAG_SAMPLES) == 3
    )


def read_directories(path: Path) -> Iterator[dict[int, Any]]:
    """The tags of every directory of a TIFF file, BigTIFF too."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    with path.open("rb") as file:
        head = file.read(8)
        head += file.read(8) if head[2:4] in (b"\x2b\x00", b"\x00\x2b") else b""
        tags = ImageFileDirectory_v2(head)
        seen: set[int] = set()
        while tags.next and tags.next not in seen:
            seen.add(tags.next)
            file.seek(tags.next)
            tags.load(file)
            yield dict(tags)
