"""Decoding of PNG, JPEG and TIFF at the bit depth of the file.

Shapes: H, W, C with C 1 (gray) or 3 (colour).
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.source import Unreadable
from encoders.runtime.arrays import Array

if TYPE_CHECKING:
    from PIL import Image, ImageFile

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff"}


def read_image(path: Path) -> Array:
    """(H, W, C) uint8 or uint16. Palettes and CMYK become RGB, transparent pixels black; the EXIF orientation is applied.

    Raises Unreadable if the file is missing, empty, truncated, not an image, has several pages or more than 16 bits."""
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise Unreadable("there is no such file")
    if path.stat().st_size == 0:
        raise Unreadable("is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", Image.DecompressionBombWarning
            )  # radiographs and tiles are large; Pillow's hard size limit still applies
            with Image.open(path, formats=("PNG", "JPEG", "TIFF")) as opened:
                return decode_pixels(opened)
    except UnidentifiedImageError:
        raise Unreadable("is not a PNG, JPEG or TIFF image") from None
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG
        raise Unreadable(f"is broken: {error}") from error


def decode_pixels(opened: "ImageFile.ImageFile") -> Array:
    """(H, W, C) of an opened Pillow image."""
    from PIL import ImageOps
    from PIL.TiffImagePlugin import TiffImageFile

    pages = opened.n_frames if isinstance(opened, TiffImageFile) else 1
    if pages > 1:
        raise Unreadable(f"holds {pages} pages; expected one image per file")
    deep = "16" in str(opened.tile[0][3]) if opened.tile and opened.mode == "RGB" else False
    if deep:
        raise Unreadable("is colour with 16 bits per channel, which Pillow would reduce to 8; save it as 8-bit colour or 16-bit gray")
    opened.load()
    image: Image.Image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I") or image.mode == "F":
        return to_uint16(np.asarray(image))
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
