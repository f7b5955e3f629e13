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

VENDORS = ("aperio", "generic-tiff")  # of OpenSlide: tiles side by side, without overlap
WIDTH, HEIGHT, COMPRESSION, COLOURS, SAMPLES = 256, 257, 259, 262, 277  # tags of TIFF 6.0
TILE_WIDTH, TILE_HEIGHT, OFFSETS, COUNTS, TABLES = 322, 323, 324, 325, 347
JPEG, RGB, YCBCR = 7, 2, 6
ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"  # then a byte: 0 for RGB, 1 for YCbCr. A tile does not say it, its directory does


class JpegTiles:
    """One level of one file; keeps `cache` bytes of decoded tiles."""

    def __init__(self, path: Path, directory: dict[int, Any], cache: int):
        self.size = int(directory[WIDTH]), int(directory[HEIGHT])
        self.tile = int(directory[TILE_WIDTH]), int(directory[TILE_HEIGHT])
        self.across = -(-self.size[0] // self.tile[0])
        self.offsets = np.asarray(directory[OFFSETS], np.int64).reshape(-1)
        self.counts = np.asarray(directory[COUNTS], np.int64).reshape(-1)
        self.tables = bytes(directory.get(TABLES, b""))[2:-2]
        self.colours = ADOBE + bytes([int(directory[COLOURS] == YCBCR)])
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


def opened(path: Path, vendor: str, size: tuple[int, int], cache: int) -> JpegTiles | None:
    """The level of `size` (W, H) in pixels of a slide; None where it is not made of JPEG tiles, or two levels have that size."""
    if vendor not in VENDORS:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow warns of a torn file and gives the tags it has
            found = [each for each in directories(path) if (each.get(WIDTH), each.get(HEIGHT)) == size and plain(each)]
    except (OSError, SyntaxError, ValueError, TypeError, KeyError):  # what Pillow raises for a file that is no TIFF, or a torn one
        return None
    return JpegTiles(path, found[0], cache) if len(found) == 1 else None


def plain(directory: dict[int, Any]) -> bool:
    """Whether it holds tiles of three 8-bit colours as JPEG."""
    needed = {TILE_WIDTH, TILE_HEIGHT, OFFSETS, COUNTS} <= directory.keys()
    return needed and directory.get(COMPRESSION) == JPEG and directory.get(COLOURS) in (RGB, YCBCR) and directory.get(SAMPLES) == 3


def directories(path: Path) -> Iterator[dict[int, Any]]:
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
