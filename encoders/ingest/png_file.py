"""Decoding of PNG files with 16 bits per sample that Pillow would reduce to 8: colour, and gray or colour with alpha.

Shapes: H, W, C with C 1 or 3.
"""

from typing import TYPE_CHECKING

import numpy as np

from encoders.ingest.decoded import composite_on_black
from encoders.ingest.source import Unreadable
from encoders.runtime.arrays import Array

if TYPE_CHECKING:
    from PIL import ImageFile

DEPTH_AT, COLOUR_TYPE_AT = 24, 25  # bytes of the file, in the IHDR chunk


def is_deep_png(head: bytes) -> bool:
    """Whether the PNG has 16 bits per sample and more than one sample per pixel.  head: the first 26 bytes or more."""
    return len(head) > COLOUR_TYPE_AT and head[DEPTH_AT] == 16 and head[COLOUR_TYPE_AT] != 0


def decode_deep_png(data: bytes, opened: "ImageFile.ImageFile") -> Array:
    """(H, W, C) uint16, transparent pixels black.  opened: the same file, opened by Pillow and not loaded."""
    import imagecodecs

    try:
        values = np.asarray(imagecodecs.png_decode(data))
    except (RuntimeError, ValueError) as error:
        raise Unreadable(f"is broken: {error}") from error
    values = values.reshape(opened.height, opened.width, -1)
    samples = {2: 3, 4: 2, 6: 4}[data[COLOUR_TYPE_AT]]
    if values.dtype != np.uint16 or values.shape[2] < samples:
        raise Unreadable(f"has 16 bits per sample, and is decoded as {values.dtype} with {values.shape[2]} channels; save it without alpha")
    if values.shape[2] in (2, 4):
        return composite_on_black(values[..., :-1], values[..., -1:])
    return hide_transparent(values, opened.info.get("transparency"))


def hide_transparent(values: Array, key: object) -> Array:
    """The image with black where it has the transparent value.  key: of the tRNS chunk: a number, a number per channel, or None."""
    if not isinstance(key, int | tuple):
        return values
    transparent = (values == np.reshape(np.atleast_1d(key), (1, 1, -1))).all(axis=2, keepdims=True)
    return np.where(transparent, 0, values).astype(values.dtype)
