"""The pixels of a PNG, JPEG or TIFF with the bit depth they have in the file, or the reason why not.

Shapes: H, W, C with C 1 (gray) or 3 (colour).
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.source import Unreadable

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff"}


def read_image(path: Path) -> NDArray[Any]:
    """(H, W, C) uint8 or uint16. Palettes and CMYK become colour, transparent pixels black, EXIF orientation is applied.

    Raises Unreadable for a file that is missing, empty, cut off, no image, of several pages, or deeper than 16 bits."""
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise Unreadable("there is no such file")
    if path.stat().st_size == 0:
        raise Unreadable("is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", Image.DecompressionBombWarning
            )  # large radiographs and tiles are no attack; Pillow's hard limit stays
            with Image.open(path, formats=("PNG", "JPEG", "TIFF")) as picture:
                return decode_pixels(picture, path)
    except UnidentifiedImageError:
        raise Unreadable("is not a PNG, JPEG or TIFF image") from None
    except (OSError, SyntaxError) as wrong:  # Pillow says SyntaxError for a broken PNG
        raise Unreadable(f"is broken: {wrong}") from wrong


def decode_pixels(picture: Any, path: Path) -> NDArray[Any]:
    """(H, W, C) of an opened Pillow image."""
    from PIL import ImageOps

    if picture.format == "TIFF" and getattr(picture, "n_frames", 1) > 1:
        raise Unreadable(f"holds {picture.n_frames} pages; one image a file is expected")
    deep = "16" in str(picture.tile[0][3]) if picture.tile and picture.mode == "RGB" else False
    if deep:
        raise Unreadable("is colour with 16 bits a channel, which Pillow would cut to 8; save it as 8-bit colour or 16-bit gray")
    picture.load()
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        return to_uint16(np.asarray(picture))
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        rgba = np.asarray(picture.convert("RGBA")).astype(np.uint16)  # (H, W, 4)
        return ((rgba[..., :3] * rgba[..., 3:] + 127) // 255).astype(np.uint8)
    picture = picture.convert("L" if picture.mode in ("1", "L") else "RGB")
    return np.asarray(picture).reshape(picture.height, picture.width, -1)


def to_uint16(values: NDArray[Any]) -> NDArray[np.uint16]:
    """(H, W, 1): Pillow hands 16-bit gray over as 16-bit or as 32-bit integers, and converting it itself would saturate at 255."""
    if values.dtype.kind == "f":
        raise Unreadable("has floating-point pixels; save it with 8 or 16 bits, scaled as you mean it")
    if int(values.min()) < 0 or int(values.max()) > 65535:
        raise Unreadable(f"has values from {values.min()} to {values.max()}; 8 and 16 bits can be stored")
    return values.astype(np.uint16)[..., None]
