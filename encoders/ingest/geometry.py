"""Resizing of images to a square, antialiased, for 8 and 16 bits.

Shapes: H, W, C of the input image, S side of the square.
"""

import numpy as np

from encoders.ingest.options import ResizeRule
from encoders.runtime.arrays import Array
from encoders.runtime.json_types import Json


def describe_geometry(size: int, rule: ResizeRule) -> dict[str, Json]:
    """The geometry that a store records, so that readers can compare it with the training data of an encoder."""
    if not size:
        return {"resize": "none", "size": None}
    return {"resize": rule, "size": [size, size], "interpolation": "bicubic", "antialias": True, "fill": 0 if rule == "pad" else None}


def resize_to_square(image: Array, size: int, rule: ResizeRule) -> Array:
    """(S, S, C) of the same dtype; with `size` 0, the image unchanged.

    pad: the long side becomes S, with equal black margins on both sides.  crop: the short side becomes S, and the centre is kept.
    squash: both sides become S, and the aspect ratio is lost."""
    if not size or rule == "none":
        return image
    height, width = image.shape[:2]
    if rule == "squash":
        return resize_bicubic(image, size, size)
    side = max(height, width) if rule == "pad" else min(height, width)
    inner = resize_bicubic(image, max(1, round(height * size / side)), max(1, round(width * size / side)))
    top, left = (size - inner.shape[0]) // 2, (size - inner.shape[1]) // 2  # negative for crop
    if rule == "crop":
        return np.ascontiguousarray(inner[-top : -top + size, -left : -left + size])
    out = np.zeros((size, size, image.shape[2]), image.dtype)
    out[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return out


def resize_bicubic(image: Array, height: int, width: int) -> Array:
    """(height, width, C): bicubic, with a filter as wide as the reduction requires. Values are rounded and clipped."""
    from PIL import Image

    if image.shape[:2] == (height, width):
        return image
    if image.dtype == np.uint8:
        img = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        return np.asarray(img.resize((width, height), Image.Resampling.BICUBIC)).reshape(height, width, -1)
    top = np.iinfo(image.dtype).max
    planes = [Image.fromarray(image[..., c].astype(np.float32)) for c in range(image.shape[2])]  # Pillow cannot resample 16-bit integers
    out = np.stack([np.asarray(p.resize((width, height), Image.Resampling.BICUBIC)) for p in planes], axis=-1)
    return np.asarray(np.clip(np.rint(out), 0, top).astype(image.dtype))
