"""Decoding of JPEG files, with a check for damage.

Pillow, like most readers, ignores the warnings of libjpeg-turbo: a file with a flipped byte becomes an image with shifted, wrong colours
below it. Here every warning counts. A change that gives another valid stream of the same length causes no warning and cannot be detected.

Shapes: H, W, C with C 1 or 3.
"""

from typing import TYPE_CHECKING

import numpy as np

from encoders.ingest.decoded import DecodedImage
from encoders.ingest.source import Remark, Unreadable
from encoders.runtime.arrays import Array

if TYPE_CHECKING:
    from PIL import ImageFile

DAMAGE_ACCEPTED = "a damaged JPEG is stored as decoded (--accept-damaged)"
DAMAGE_UNCHECKED = "a JPEG with an unusual header could not be checked for damage"
# Warnings about the header, after which the pixels are decoded as intended. Some encoders write such headers.
HEADER_WARNINGS = ("Invalid SOS parameters", "unknown JFIF revision", "Unknown Adobe color transform")
COLOUR_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}  # mode of Pillow to that of simplejpeg


def decode_jpeg_pixels(data: bytes, opened: "ImageFile.ImageFile", accept_damaged: bool = False) -> DecodedImage:
    """The pixels of a JPEG file, equal to Pillow's.  opened: the same file, opened by Pillow and not loaded.

    accept_damaged: decode what can be decoded. Raises Unreadable with the words of the decoder for a damaged file."""
    pixels, remarks = None, []
    try:
        pixels = decode_strictly(data, COLOUR_SPACES[opened.mode])
    except ValueError as error:
        words = str(error).strip()
        loose = decode_loosely(data, COLOUR_SPACES[opened.mode])
        if loose is None or any(text in words for text in HEADER_WARNINGS):
            remarks.append(Remark(DAMAGE_UNCHECKED, words))  # if the file is broken, Pillow raises below
        elif not accept_damaged:
            raise Unreadable(f"is broken: damaged JPEG: {words}; pass --accept-damaged to store it as it is decoded") from None
        else:
            remarks.append(Remark(DAMAGE_ACCEPTED, words))
        pixels = loose
    if pixels is None or opened.mode == "CMYK":
        pixels = np.asarray(opened.convert("L" if opened.mode == "L" else "RGB"))
    return DecodedImage(pixels.reshape(opened.height, opened.width, -1), tuple(remarks))


def decode_strictly(data: bytes, space: str) -> Array:
    """The pixels. Raises ValueError for every warning of the decoder."""
    import simplejpeg

    pixels: Array = simplejpeg.decode_jpeg(data, space, fastdct=False, fastupsample=False)
    return pixels


def decode_loosely(data: bytes, space: str) -> Array | None:
    """The pixels in spite of warnings; None if nothing can be decoded."""
    import simplejpeg

    try:
        pixels: Array = simplejpeg.decode_jpeg(data, space, fastdct=False, fastupsample=False, strict=False)
    except ValueError:
        return None
    return pixels


def find_jpeg_damage(data: bytes) -> str:
    """The decoder's words if the JPEG stream of 8 bits is damaged; "" if it is not, and for a stream that cannot be checked."""
    import simplejpeg

    try:
        space = COLOUR_SPACES.get({"Gray": "L", "CMYK": "CMYK", "YCCK": "CMYK"}.get(simplejpeg.decode_jpeg_header(data)[2], "RGB"), "RGB")
        decode_strictly(data, space)
    except ValueError as error:
        words = str(error).strip()
        return "" if any(text in words for text in (*HEADER_WARNINGS, "Unsupported JPEG process", "data precision")) else words
    return ""
