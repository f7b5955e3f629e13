"""Decodes JPEG tiles of a TIFF level directly from the file.

OpenSlide decodes a tile to ARGB and paints it with cairo, and Python converts it to RGBA and then to RGB, which takes most of the reading
time. The two most frequent kinds of slide are plain tiled TIFFs, whose tiles any JPEG decoder reads: the same pixels in a third of the
time. OpenSlide reads everything else (a border, a missing tile). It ignores the warnings of its decoder, so damage is looked for here.

Shapes: W, H of a region, w, h of a tile, in pixels of the level.
"""

import os
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.jpeg_file import decode_strictly, find_jpeg_damage

JPEG_TILE_VENDORS = ("aperio", "generic-tiff")  # vendors of OpenSlide whose tiles do not overlap
TAG_WIDTH, TAG_HEIGHT, TAG_COMPRESSION, TAG_PHOTOMETRIC, TAG_SAMPLES = 256, 257, 259, 262, 277  # TIFF 6.0
TAG_TILE_WIDTH, TAG_TILE_HEIGHT, TAG_TILE_OFFSETS, TAG_TILE_BYTE_COUNTS, TAG_JPEG_TABLES = 322, 323, 324, 325, 347
TILE_TAGS = {TAG_TILE_WIDTH, TAG_TILE_HEIGHT, TAG_TILE_OFFSETS, TAG_TILE_BYTE_COUNTS}
COMPRESSION_JPEG, PHOTOMETRIC_RGB, PHOTOMETRIC_YCBCR = 7, 2, 6
# The byte that follows is 0 for RGB and 1 for YCbCr. The directory of the level declares it, a tile does not.
ADOBE_MARKER = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
Directory = Mapping[int, Any]  # number of a TIFF tag to its value


class JpegTiles:
    """The tiles of one level of one file; keeps at most `cache` bytes of decoded tiles."""

    def __init__(self, path: Path, directory: Directory, cache: int):
        self.size = int(directory[TAG_WIDTH]), int(directory[TAG_HEIGHT])
        self.tile = int(directory[TAG_TILE_WIDTH]), int(directory[TAG_TILE_HEIGHT])
        self.across = -(-self.size[0] // self.tile[0])
        self.offsets = np.asarray(directory[TAG_TILE_OFFSETS], np.int64).reshape(-1)
        self.counts = np.asarray(directory[TAG_TILE_BYTE_COUNTS], np.int64).reshape(-1)
        self.tables = bytes(directory.get(TAG_JPEG_TABLES, b""))[2:-2]
        self.colours = ADOBE_MARKER + bytes([int(directory[TAG_PHOTOMETRIC] == PHOTOMETRIC_YCBCR)])
        self.file = os.open(path, os.O_RDONLY)
        self.kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self.damage: dict[int, str] = {}  # number of a tile to the words of the decoder, "" if it is not damaged
        self.room = max(cache // (3 * self.tile[0] * self.tile[1]), 1)  # tiles

    def close(self) -> None:
        os.close(self.file)

    def read_region(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8] | None:
        """(H, W, 3) from the pixel (x, y) of the level; None if it is not completely inside, or if a tile is missing or damaged."""
        if x < 0 or y < 0 or x + width > self.size[0] or y + height > self.size[1]:
            return None
        (w, h), out = self.tile, np.empty((height, width, 3), np.uint8)
        for row in range(y // h, (y + height - 1) // h + 1):
            for column in range(x // w, (x + width - 1) // w + 1):
                tile = self.decode_tile(row * self.across + column)
                if tile is None:
                    return None
                left, top = column * w - x, row * h - y  # position of the tile in the region
                to = slice(max(top, 0), min(top + h, height)), slice(max(left, 0), min(left + w, width))
                out[to] = tile[to[0].start - top : to[0].stop - top, to[1].start - left : to[1].stop - left]
        return out

    def find_damage(self, x: int, y: int, width: int, height: int) -> str:
        """The words of the decoder about the first damaged tile of a region; "" if there is none. The region may exceed the level."""
        (w, h), (right, bottom) = self.tile, (min(x + width, self.size[0]), min(y + height, self.size[1]))
        for row in range(max(y, 0) // h, -(-bottom // h)):
            for column in range(max(x, 0) // w, -(-right // w)):
                if words := self.describe_tile(row * self.across + column):
                    return words
        return ""

    def describe_tile(self, number: int) -> str:
        """The words of the decoder about a tile; "" if it is not damaged, and for a tile that OpenSlide refuses or leaves empty."""
        if number not in self.damage:
            data = self.read_tile(number) if number < len(self.offsets) and number not in self.kept else b""
            self.damage[number] = find_jpeg_damage(data) if data else ""
        return self.damage[number]

    def read_bytes(self, number: int) -> bytes:
        """What the file holds of a tile."""
        return os.pread(self.file, int(self.counts[number]), int(self.offsets[number]))

    def read_tile(self, number: int) -> bytes:
        """The stream of a tile with its tables and colour space; b"" if there is none."""
        data = self.read_bytes(number)
        return data[:2] + self.colours + self.tables + data[2:] if data.startswith(b"\xff\xd8") else b""

    def decode_stream(self, data: bytes) -> NDArray[np.uint8]:
        """(h, w, 3) of the stream of a tile. Raises ValueError if it is damaged."""
        return decode_strictly(data, "RGB")

    def decode_tile(self, number: int) -> NDArray[np.uint8] | None:
        """(h, w, 3) of a tile; None if it is missing, damaged or has another size."""
        if number in self.kept:
            self.kept.move_to_end(number)
            return self.kept[number]
        data = self.read_tile(number)
        if not data:
            return None
        try:
            tile = self.decode_stream(data)
        except ValueError:
            return None
        if tile.shape != (self.tile[1], self.tile[0], 3):
            return None
        self.kept[number] = tile
        if len(self.kept) > self.room:
            self.kept.popitem(last=False)
        return tile


def open_jpeg_tiles(path: Path, vendor: str, size: tuple[int, int], cache: int) -> JpegTiles | None:
    """The level of a slide with `size` (W, H) in pixels; None if it does not consist of JPEG tiles, or if two levels have this size."""
    levels = find_levels(path, size) if vendor in JPEG_TILE_VENDORS else []
    levels = [directory for directory in levels if has_jpeg_tiles(directory)]
    return JpegTiles(path, levels[0], cache) if len(levels) == 1 else None


def find_levels(path: Path, size: tuple[int, int]) -> list[Directory]:
    """The directories of a TIFF file with `size` (W, H); [] for a file that cannot be read."""
    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow warns about a truncated file and returns the tags it has
            return [d for d in read_directories(path) if (d.get(TAG_WIDTH), d.get(TAG_HEIGHT)) == size]
    except (OSError, SyntaxError, ValueError, TypeError, KeyError):  # raised by Pillow for a file that is not TIFF or is truncated
        return []


def has_jpeg_tiles(directory: Directory) -> bool:
    """Whether the directory holds JPEG tiles with three channels."""
    return (
        directory.keys() >= TILE_TAGS
        and directory.get(TAG_COMPRESSION) == COMPRESSION_JPEG
        and directory.get(TAG_PHOTOMETRIC) in (PHOTOMETRIC_RGB, PHOTOMETRIC_YCBCR)
        and directory.get(TAG_SAMPLES) == 3
    )


def read_directories(path: Path) -> Iterator[Directory]:
    """The tags of every directory of a TIFF or BigTIFF file."""
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
