"""Decodes JPEG 2000 tiles of an Aperio level directly from the file, in two thirds of the time of OpenSlide (2.4 against 3.6 ms a tile).

Only tiles stored as RGB (compression 33005). Those stored as YCbCr (33003) stay with OpenSlide, whose decoder converts their colours: the
conversion here would take half of what is gained. OpenSlide also reads every tile that does not decode: what it says of a damaged tile is
the reason. Both use OpenJPEG: of 400 tiles with changed bytes, both refused the same nine and read the others alike.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.wsi.jpeg_tiles import TAG_COMPRESSION, TAG_PHOTOMETRIC, TAG_SAMPLES, TILE_TAGS, Directory, JpegTiles, find_levels

JPEG2000_VENDOR = "aperio"
COMPRESSION_JPEG2000_RGB, PHOTOMETRIC_AS_STORED = 33005, 2
CODESTREAM_START = b"\xff\x4f\xff\x51"  # SOC and SIZ


class Jpeg2000Tiles(JpegTiles):
    """The tiles of one level of one file, each a codestream of JPEG 2000."""

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
        return pixels


def open_jpeg2000_tiles(path: Path, vendor: str, size: tuple[int, int], cache: int) -> Jpeg2000Tiles | None:
    """The level of a slide with `size` (W, H) in pixels; None if it does not consist of such tiles, or if two levels have this size."""
    levels = find_levels(path, size) if vendor == JPEG2000_VENDOR else []
    levels = [directory for directory in levels if has_jpeg2000_tiles(directory)]
    return Jpeg2000Tiles(path, levels[0], cache) if len(levels) == 1 else None


def has_jpeg2000_tiles(directory: Directory) -> bool:
    """Whether the directory holds JPEG 2000 tiles with three channels, stored as RGB."""
    return (
        directory.keys() >= TILE_TAGS
        and directory.get(TAG_COMPRESSION) == COMPRESSION_JPEG2000_RGB
        and directory.get(TAG_PHOTOMETRIC) == PHOTOMETRIC_AS_STORED
        and directory.get(TAG_SAMPLES) == 3
    )
