"""Decoding of JPEG files, with a check for damage.

Pillow, like most readers, ignores the warnings of libjpeg-turbo: a file with a flipped byte becomes an image with shifted, wrong colours
below it. Here every warning counts. A change that gives another valid stream of the same length causes no warning and cannot be detected.

Shapes: H, W, C with C 1 or 3.
"""

from typing import TYPE_CHECKING

import numpy as np

from encoders.ingest.damage import report_damage
from encoders.ingest.decoded import DecodedImage
from encoders.ingest.source import Remark
from encoders.runtime.arrays import Array

if TYPE_CHECKING:
    from PIL import ImageFile

DAMAGE_UNCHECKED = "a JPEG of an unusual kind could not be checked for damage"
# Warnings about the header, after which the pixels are decoded as intended. Some encoders write such headers.
HEADER_WARNINGS = ("Invalid SOS parameters", "unknown JFIF revision", "Unknown Adobe color transform")
# Files that libjpeg-turbo decodes, but its interface for checks does not.
UNCHECKABLE = ("Could not determine subsampling", "Unsupported JPEG process", "JPEG data precision", "Unsupported color conversion")
COLOUR_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}  # mode of Pillow to that of simplejpeg


def decode_jpeg_pixels(data: bytes, opened: "ImageFile.ImageFile", accept_damaged: bool = False) -> DecodedImage:
    """The pixels of a JPEG file, equal to Pillow's.  opened: the same file, opened by Pillow and not loaded.

    accept_damaged: decode what can be decoded. Raises Unreadable with the words of the decoder for a damaged file."""
    pixels, remarks = None, []
    space = COLOUR_SPACES[opened.mode]
    try:
        pixels = decode_strictly(data, space)
    except ValueError as error:
        words = str(error).strip()
        if any(text in words for text in UNCHECKABLE):
            remarks.append(Remark(DAMAGE_UNCHECKED, words))  # if the file is broken, Pillow raises below
        else:
            remarks.append(report_damage(f"damaged JPEG: {words}", accept_damaged))
            pixels = decode_loosely(data, space)
    if pixels is None or opened.mode == "CMYK":
        pixels = np.asarray(opened.convert("L" if opened.mode == "L" else "RGB"))
    return DecodedImage(pixels.reshape(opened.height, opened.width, -1), tuple(remarks))


def decode_strictly(data: bytes, space: str) -> Array:
    """The pixels. Raises ValueError for every warning of the decoder but those about values of a header that it ignores."""
    import simplejpeg

    try:
        pixels: Array = simplejpeg.decode_jpeg(data, space, fastdct=False, fastupsample=False)
    except ValueError as error:
        usual = correct_header(data) if any(text in str(error) for text in HEADER_WARNINGS) else data
        if usual == data:
            raise
        pixels = simplejpeg.decode_jpeg(usual, space, fastdct=False, fastupsample=False)
    return pixels


def correct_header(data: bytes) -> bytes:
    """The stream with the values that decoders assume instead of unusual ones, so that other warnings are seen.

    These are the revision of JFIF, the spectral range of a sequential scan, and an unknown colour transform of Adobe.
    Source: ITU-T T.81 B.2.3, T.871 10, T.872 6.5.3."""
    out, at, sequential, components, transform = bytearray(data), 2, False, 0, 0
    while at + 4 <= len(out) and out[at] == 0xFF:
        marker, length = out[at + 1], int.from_bytes(out[at + 2 : at + 4])
        body = slice(at + 4, at + 2 + length)
        if marker in (0xC0, 0xC1, 0xC2):
            sequential, components = marker != 0xC2, out[at + 9]
        if marker == 0xE0 and out[body][:5] == b"JFIF\0":
            out[at + 9] = 1
        if marker == 0xEE and out[body][:5] == b"Adobe" and length >= 14 and out[at + 15] > 2:
            transform = at + 15
        if marker == 0xDA:
            break
        at += 2 + length
    if transform:
        out[transform] = {3: 1, 4: 2}.get(components, 0)
    while sequential and (at := out.find(b"\xff\xda", at)) >= 0:  # cannot occur inside compressed data
        at += 5 + 2 * out[at + 4]
        out[at : at + 3] = b"\0\x3f\0"
    return bytes(out)


def describe_refusal(data: bytes) -> str:
    """The words of the decoder about a stream that it does not decode, e.g. of 12 bits; "" if it does."""
    try:
        decode_strictly(data, "RGB")
    except ValueError as error:
        return str(error).strip()
    return ""


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
        space = {"Gray": "GRAY", "CMYK": "CMYK", "YCCK": "CMYK"}.get(simplejpeg.decode_jpeg_header(data)[2], "RGB")
    except ValueError:
        space = "RGB"  # a warning, which `decode_strictly` judges
    try:
        decode_strictly(data, space)
    except ValueError as error:
        words = str(error).strip()
        return "" if any(text in words for text in UNCHECKABLE) else words
    return ""
