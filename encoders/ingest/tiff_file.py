"""Decoding of TIFF files whose meaning Pillow does not keep: more than 8 bits, extra samples, and sample formats other than unsigned.

Pillow returns 16-bit WhiteIsZero as a negative, reduces 16-bit colour to 8 bits, and reads signed bytes as unsigned. tifffile returns the
samples as they are stored, and their meaning is applied here: black becomes 0, alpha is applied on black, the orientation is undone.

Shapes: H, W, C with C 1 or 3; S samples per pixel in the file.  Source: TIFF 6.0.
"""

import io
import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from encoders.ingest.damage import report_damage
from encoders.ingest.decoded import DecodedImage, apply_orientation, composite_on_black, widen
from encoders.ingest.icc import describe_profile
from encoders.ingest.source import Remark, Unreadable
from encoders.ingest.tiff_check import JPEG_COMPRESSIONS, find_tiff_damage, tolerate_damage
from encoders.runtime.arrays import Array

if TYPE_CHECKING:
    from tifffile import TiffPage

TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, YCBCR = 0, 1, 2, 6  # tag 262
UNSIGNED, SIGNED, FLOAT, VOID, COMPLEX_INT, COMPLEX = 1, 2, 3, 4, 5, 6  # tag 339
UNSPECIFIED, ASSOCIATED, UNASSOCIATED = 0, 1, 2  # tag 338
ORIENTATION_TAG, ICC_TAG = 274, 34675
EXTRA_IGNORED = "an extra channel without a stated meaning is ignored"
TIFF_ERRORS = (ValueError, RuntimeError, OSError, struct.error, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError)


def decode_tiff(path: Path, most_pixels: int, accept_damaged: bool = False) -> DecodedImage | None:
    """The only image of a TIFF file; None if it is not damaged and Pillow reads it exactly.

    most_pixels: limit of H * W.  accept_damaged: strips and tiles that cannot be decoded are black.
    Raises Unreadable with the reason if it is broken or has no well-defined reading as 8 or 16 bits."""
    import tifffile

    with silent_tifffile():
        try:
            with tifffile.TiffFile(path) as file:
                pages = len(file.pages)
                if pages > 1:
                    raise Unreadable(f"holds {pages} pages; expected one image per file")
                page = file.pages.first
                if page.imagewidth * page.imagelength > most_pixels:
                    raise Unreadable(f"has {page.imagewidth} x {page.imagelength} pixels, more than {most_pixels:,}")
                if words := find_tiff_damage(page, path.stat().st_size):
                    remark = report_damage(words, accept_damaged)
                    image = decode_damaged(path, page)
                    return DecodedImage(image.pixels, (remark, *image.remarks))
                if is_exact_in_pillow(page):
                    return None
                return interpret_page(page)
        except Unreadable:
            raise
        except TIFF_ERRORS as error:
            raise Unreadable(f"is broken: {' '.join(str(error).split())}") from error


def decode_damaged(path: Path, page: "TiffPage") -> DecodedImage:
    """The page as far as it can be decoded; what is missing at the end of the file is read as zeros."""
    import tifffile

    data = path.read_bytes()
    end = max((start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=False)), default=0)
    if end > len(data) + page.nbytes:
        raise Unreadable(f"is broken: its pixels end at byte {end:,}, and the file has {len(data):,}")
    with tifffile.TiffFile(io.BytesIO(data.ljust(end, b"\0"))) as file:
        tolerate_damage(file.pages.first)
        return interpret_page(file.pages.first, damaged=True)


@contextmanager
def silent_tifffile() -> Iterator[None]:
    """Without the log of tifffile, whose content is in the exceptions."""
    logger = logging.getLogger("tifffile")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def is_exact_in_pillow(page: "TiffPage") -> bool:
    """Whether the page has up to 8 unsigned bits per sample and no extra sample."""
    deep = max(np.atleast_1d(page.bitspersample)) > 8
    return not deep and set(np.atleast_1d(page.sampleformat).tolist()) == {UNSIGNED} and not extra_samples(page)


def extra_samples(page: "TiffPage") -> tuple[int, ...]:
    """The meaning of every sample beyond those of the colour, as TIFF 6.0 numbers it; unspecified if the file does not state it."""
    colour = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, 3: 1, RGB: 3, 5: 4, 6: 3, 8: 3}.get(int(page.photometric), int(page.samplesperpixel))
    stated = tuple(int(kind) for kind in np.atleast_1d(page.extrasamples)) if page.extrasamples is not None else ()
    number = max(int(page.samplesperpixel) - colour, 0)
    return (stated + (UNSPECIFIED,) * number)[:number]


def interpret_page(page: "TiffPage", damaged: bool = False) -> DecodedImage:
    """The page in its meaning: 0 is black, on a black background, upright.

    damaged: it may be of a kind that is read by Pillow if it is not damaged: JPEG in YCbCr, and fewer than 8 bits."""
    photometric, bits = int(page.photometric), set(np.atleast_1d(page.bitspersample).tolist())
    if damaged and photometric == YCBCR and int(page.compression) in JPEG_COMPRESSIONS:
        photometric = RGB  # as tifffile decodes it
    extra = extra_samples(page)
    check_meaning(page, photometric, bits, extra)
    values = page.asarray()
    height, width, samples = int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel)
    if values.size != height * width * samples:
        raise Unreadable(f"has {values.size} values, expected {height} x {width} x {samples}")
    if int(page.planarconfig) == 2 and samples > 1:
        values = np.moveaxis(values.reshape(samples, height, width), 0, -1)
    image = to_unsigned(values.reshape(height, width, samples), bits)  # (H, W, S)
    colour, top = image[..., : samples - len(extra)], 2 ** bits.pop() - 1
    alpha = next((image[..., samples - len(extra) + k, None] for k, kind in enumerate(extra) if kind != UNSPECIFIED), None)
    associated = ASSOCIATED in extra and UNASSOCIATED not in extra
    if photometric == WHITE_IS_ZERO:
        white = alpha if alpha is not None and associated else top  # multiplied with alpha, the value of black is alpha
        colour = np.maximum(widen(white) - widen(colour), 0).astype(image.dtype)
    if alpha is not None and not associated:
        colour = composite_on_black(colour, scale_to_dtype(alpha, top))
    remarks = [Remark(EXTRA_IGNORED, f"{extra.count(UNSPECIFIED)} of {samples}")] if UNSPECIFIED in extra else []
    if ICC_TAG in page.tags:
        remarks += describe_profile(bytes(page.tags[ICC_TAG].value))
    if damaged and top < 255:
        colour = np.asarray(colour * (255 // top), dtype=colour.dtype)
    upright = apply_orientation(colour, int(page.tags[ORIENTATION_TAG].value)) if ORIENTATION_TAG in page.tags else colour
    return DecodedImage(np.ascontiguousarray(upright), tuple(remarks))


def check_meaning(page: "TiffPage", photometric: int, bits: set[int], extra: tuple[int, ...]) -> None:
    """Raises Unreadable if the samples have no well-defined reading as gray or RGB of 8 or 16 bits."""
    formats = set(np.atleast_1d(page.sampleformat).tolist())
    if FLOAT in formats:
        raise Unreadable("has floating-point pixels; scale it and save it with 8 or 16 bits")
    if not formats <= {UNSIGNED, SIGNED}:
        raise Unreadable(f"has samples of format {sorted(formats)} (complex or undefined); expected unsigned integers")
    if photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
        name = getattr(page.photometric, "name", photometric)
        raise Unreadable(f"is {name} with {max(bits)} bits and {page.samplesperpixel} samples per pixel; save it as gray or RGB")
    if len(bits) > 1:
        raise Unreadable(f"has samples of different depth: {sorted(bits)} bits")
    if len(extra) > 1 and photometric != RGB and UNSPECIFIED in extra:
        raise Unreadable(f"has {page.samplesperpixel} channels without a stated meaning; expected gray or RGB")
    if int(getattr(page, "imagedepth", 1) or 1) > 1:
        raise Unreadable(f"holds a volume of {page.imagedepth} slices; expected one image per file")


def to_unsigned(values: Array, bits: set[int]) -> Array:
    """The values as uint8 or uint16 in native byte order. Raises Unreadable if one is negative or above 65535."""
    low, high = int(values.min()), int(values.max())
    if low < 0:
        raise Unreadable(f"has signed pixels from {low} to {high}, for which black is not defined; shift them and save them as unsigned")
    if high > 65535:
        raise Unreadable(f"has values up to {high}; expected 8 or 16 bits")
    return values.astype(np.uint8 if max(bits) <= 8 else np.uint16)


def scale_to_dtype(alpha: Array, top: int) -> Array:
    """Alpha (H, W, 1) whose full value is the largest of its dtype.  top: its full value."""
    full = int(np.iinfo(alpha.dtype).max)
    return alpha if top == full else np.asarray((widen(alpha) * full // top).astype(alpha.dtype))
