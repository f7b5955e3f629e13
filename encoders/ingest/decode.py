"""Decoding of PNG, JPEG and TIFF at the bit depth of the file.

Pillow reads the header of every file and the pixels of most. It ignores most damage: `jpeg_file` decodes JPEG, and `png_check` and
`tiff_check` test the checksums and lengths of the others. `png_file` and `tiff_file` read what Pillow would reduce to 8 bits or misread.

Shapes: H, W, C with C 1 (gray) or 3 (colour).
"""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.damage import report_damage
from encoders.ingest.decoded import DecodedImage, apply_orientation
from encoders.ingest.icc import describe_png_gamma, describe_profile
from encoders.ingest.jpeg_file import COLOUR_SPACES, decode_jpeg_pixels, describe_refusal
from encoders.ingest.png_check import PNG_SIGNATURE, find_png_damage, repair_png
from encoders.ingest.png_file import decode_deep_png, hide_transparent, is_deep_png
from encoders.ingest.source import Remark, Unreadable
from encoders.ingest.tiff_file import ORIENTATION_TAG, TIFF_SIGNATURES, decode_tiff
from encoders.runtime.arrays import Array
from encoders.runtime.read_errors import READ_ERRORS, describe_reason

if TYPE_CHECKING:
    from PIL import Image, ImageFile

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff"}


def read_image(path: Path) -> Array:
    """(H, W, C) uint8 or uint16. Palettes and CMYK become RGB, transparent pixels black; the EXIF orientation is applied.

    Raises Unreadable if the file is missing, empty, truncated, damaged, not an image, has several pages or more than 16 bits."""
    return decode_file(path).pixels


def decode_file(path: Path, accept_damaged: bool = False) -> DecodedImage:
    """As `read_image`, with remarks.  accept_damaged: decode a damaged file as far as possible, and remark on it."""
    from PIL import Image, UnidentifiedImageError

    data = read_nonempty_file(path)
    try:
        most_pixels = 2 * (Image.MAX_IMAGE_PIXELS or 2**40)
        remarks = []
        if data[:4] in TIFF_SIGNATURES and (exact := decode_tiff(path, most_pixels, accept_damaged)) is not None:
            return exact
        if data.startswith(PNG_SIGNATURE) and (words := find_png_damage(data, most_pixels)):
            whole = repair_png(data, most_pixels)
            remarks.append(report_damage(f"damaged PNG: {words}", accept_damaged, whole is not None))
            data = whole or data
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", Image.DecompressionBombWarning
            )  # radiographs and tiles are large; Pillow's hard size limit still applies
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "TIFF")) as opened:
                decoded = decode_opened(opened, data, accept_damaged)
                return DecodedImage(decoded.pixels, (*remarks, *decoded.remarks))
    except UnidentifiedImageError:
        if data.startswith(b"\xff\xd8\xff") and (words := describe_refusal(data)):
            raise Unreadable(f"is a JPEG that cannot be decoded: {words}") from None
        raise Unreadable("is not a PNG, JPEG or TIFF image") from None
    except Image.DecompressionBombError as error:
        raise Unreadable(f"is too large: {error}") from error
    except Unreadable:
        raise
    except READ_ERRORS as error:  # Pillow raises SyntaxError for a broken PNG
        raise Unreadable(f"is broken: {describe_reason(error)}") from error


def read_nonempty_file(path: Path) -> bytes:
    """The content of a file. Raises Unreadable if it is missing, empty or may not be read."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise Unreadable("there is no such file") from None
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from error
    if not data:
        raise Unreadable("is empty (0 bytes)")
    return data


def decode_opened(opened: "ImageFile.ImageFile", data: bytes, accept_damaged: bool) -> DecodedImage:
    """The image that Pillow opened, upright, and remarks.  data: the content of the file."""
    remarks = describe_colour(opened)
    if data[:2] == b"\xff\xd8" and opened.mode in COLOUR_SPACES:
        decoded = decode_jpeg_pixels(data, opened, accept_damaged)
        pixels, remarks = decoded.pixels, [*remarks, *decoded.remarks]
    elif data.startswith(PNG_SIGNATURE) and is_deep_png(data):
        pixels = decode_deep_png(data, opened)
    else:
        pixels = convert_pixels(opened)
    orientation = opened.getexif().get(ORIENTATION_TAG, 1)
    return DecodedImage(apply_orientation(pixels, orientation) if orientation != 1 else pixels, tuple(remarks))


def describe_colour(opened: "ImageFile.ImageFile") -> list[Remark]:
    """Remarks on a colour profile or a gamma that is not applied."""
    if profile := opened.info.get("icc_profile"):
        return describe_profile(profile)
    return describe_png_gamma(opened.info["gamma"]) if "gamma" in opened.info and "srgb" not in opened.info else []


def convert_pixels(opened: "ImageFile.ImageFile") -> Array:
    """(H, W, C) of an opened Pillow image, as it is stored."""
    opened.load()
    image: Image.Image = opened
    if image.mode.startswith("I") or image.mode == "F":
        return hide_transparent(to_uint16(np.asarray(image)), image.info.get("transparency"))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA")).astype(np.uint16)  # (H, W, 4)
        return ((rgba[..., :3] * rgba[..., 3:] + 127) // 255).astype(np.uint8)
    image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    return np.asarray(image).reshape(image.height, image.width, -1)


def to_uint16(values: Array) -> NDArray[np.uint16]:
    """(H, W, 1): Pillow returns 16-bit gray as 16-bit or 32-bit integers; its own conversion would saturate at 255."""
    if values.dtype.kind == "f":
        raise Unreadable("has floating-point pixels; scale it and save it with 8 or 16 bits")
    if int(values.min()) < 0 or int(values.max()) > 65535:
        raise Unreadable(f"has values from {values.min()} to {values.max()}; expected 8 or 16 bits")
    return values.astype(np.uint16)[..., None]
