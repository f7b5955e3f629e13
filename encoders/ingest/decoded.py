"""An image as it was decoded: its pixels, and remarks on the way they were read.

Shapes: H, W, C with C 1 (gray) or 3 (colour).
"""

from dataclasses import dataclass

import numpy as np

from encoders.ingest.source import Remark
from encoders.runtime.arrays import Array, IntArray


@dataclass(frozen=True)
class DecodedImage:
    """Pixels and remarks."""

    pixels: Array  # (H, W, C) uint8 or uint16
    remarks: tuple[Remark, ...] = ()


def composite_on_black(values: Array, alpha: Array) -> Array:
    """(H, W, C): values that are not multiplied with their alpha yet, on black.  alpha: (H, W, 1), of the same dtype."""
    top = np.iinfo(values.dtype).max
    product = values.astype(np.uint32) * alpha + top // 2  # at most 65535 ** 2 + 32767, which uint32 holds
    return np.asarray((product // top).astype(values.dtype))


def apply_orientation(pixels: Array, orientation: int) -> Array:
    """The image (H, W, C) as it is viewed.  orientation: 1 to 8 of EXIF and TIFF 6.0; other numbers mean 1.

    Source: TIFF 6.0, tag 274: the sides of the picture that row 0 and column 0 show."""
    if orientation in (5, 6, 7, 8):  # row 0 is the left or the right side
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def widen(values: Array) -> IntArray:
    """The values as int64, in which no difference overflows."""
    return np.asarray(values, dtype=np.int64)
