"""Decodes JPEG 2000 tiles of an Aperio level directly from the file: 2.4 ms instead of 3.6 by OpenSlide for a tile of 256 px stored as RGB
(compression 33005), 2.6 instead of 3.3 for one stored as YCbCr (33003).

OpenSlide reads every tile that does not decode: what it says of a damaged tile is the reason. Both use OpenJPEG: of 400 tiles with changed
bytes, both refused the same nine and read the others alike.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.wsi.jpeg_tiles import (
    PHOTOMETRIC_RGB,
    PHOTOMETRIC_YCBCR,
    TAG_COMPRESSION,
    TAG_PHOTOMETRIC,
    TAG_SAMPLES,
    TILE_TAGS,
    Directory,
    JpegTiles,
    find_levels,
)

JPEG2000_VENDOR = "aperio"
COMPRESSION_JPEG2000_YCBCR, COMPRESSION_JPEG2000_RGB = 33003, 33005
CHROMA = np.arange(256) - 128
# OpenSlide's tables: red and blue are rounded, green is the sum of two parts in 1 / 65536.
RED_OF_CR, BLUE_OF_CB = (((factor * CHROMA + 32768) >> 16).astype(np.int16) for factor in (91881, 116130))  # 1.402 and 1.772
GREEN_OF_CB = np.round(-0.34414 * 65536 * CHROMA + 32768).astype(np.int32)
GREEN_OF_CR = np.round(-0.71414 * 65536 * CHROMA).astype(np.int32)
CODESTREAM_START = b"\xff\x4f\xff\x51"  # SOC and SIZ


class Jpeg2000Tiles(JpegTiles):
    """The tiles of one level of one file, each a codestream of JPEG 2000."""

    def __init__(self, path: Path, directory: Directory, cache: int):
        super().__init__(path, directory, cache)
        self.is_ycbcr = directory[TAG_COMPRESSION] == COMPRESSION_JPEG2000_YCBCR

    def describe_tile(self, number: int) -> str:
        """ "": OpenSlide refuses a damaged tile, with the words of its decoder."""
        return ""

    def read_tile(self, number: int) -> bytes:
        """The stream of a tile; b"" if there is none."""
        data = self.read_bytes(number)
        return data if data.startswith(CODESTREAM_START) else b""

    def decode_stream(self, data: bytes) -> NDArray[np.uint8]:
        """(h, w, 3) of the stream of a tile. Raises ValueError if it is damaged."""
        import imagecodecs

        try:
            pixels = np.asarray(imagecodecs.jpeg2k_decode(data, numthreads=1))
        except (imagecodecs.Jpeg2kError, ValueError, TypeError, MemoryError) as error:
            raise ValueError(str(error)) from error
        if pixels.dtype != np.uint8:
            raise ValueError(f"its samples are {pixels.dtype}")
        return convert_ycbcr(pixels) if self.is_ycbcr and pixels.ndim == 3 else pixels


def convert_ycbcr(ycbcr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of (H, W, 3) YCbCr, rounded as by OpenSlide for every pair of chroma values."""
    y, cb, cr = ycbcr[..., 0].astype(np.int16), ycbcr[..., 1], ycbcr[..., 2]
    rgb = np.empty(ycbcr.shape, np.int16)
    np.add(y, RED_OF_CR[cr], out=rgb[..., 0])
    np.add(y, ((GREEN_OF_CB[cb] + GREEN_OF_CR[cr]) >> 16).astype(np.int16), out=rgb[..., 1])
    np.add(y, BLUE_OF_CB[cb], out=rgb[..., 2])
    return rgb.clip(0, 255).astype(np.uint8)


def open_jpeg2000_tiles(path: Path, vendor: str, size: tuple[int, int], cache: int) -> Jpeg2000Tiles | None:
    """The level of a slide with `size` (W, H) in pixels; None if it does not consist of such tiles, or if two levels have this size."""
    levels = find_levels(path, size) if vendor == JPEG2000_VENDOR else []
    levels = [directory for directory in levels if has_jpeg2000_tiles(directory)]
    return Jpeg2000Tiles(path, levels[0], cache) if len(levels) == 1 else None


def has_jpeg2000_tiles(directory: Directory) -> bool:
    """Whether the directory holds JPEG 2000 tiles with three channels."""
    return (
        directory.keys() >= TILE_TAGS
        and directory.get(TAG_COMPRESSION) in (COMPRESSION_JPEG2000_YCBCR, COMPRESSION_JPEG2000_RGB)
        and directory.get(TAG_PHOTOMETRIC) in (PHOTOMETRIC_RGB, PHOTOMETRIC_YCBCR)  # written in both cases; the compression decides
        and directory.get(TAG_SAMPLES) == 3
    )
