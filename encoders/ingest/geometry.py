"""Images to one square size, antialiased, 8 and 16 bits alike.

Shapes: H, W, C of the image given, S the side asked for.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ResizeRule = Literal["pad", "crop", "squash", "none"]


def describe_geometry(size: int, rule: ResizeRule) -> dict[str, Any]:
    """What a store records about its shape: every reader may compare it with what an encoder was trained on."""
    if not size:
        return {"resize": "none", "size": None}
    return {"resize": rule, "size": [size, size], "interpolation": "bicubic", "antialias": True, "fill": 0 if rule == "pad" else None}


def resize_to_square(image: NDArray[Any], size: int, rule: ResizeRule) -> NDArray[Any]:
    """(S, S, C) in the same dtype; `size` 0 leaves the image as it is.

    pad: the long side becomes S, and black fills the rest evenly on both sides.  crop: the short side becomes S, and the middle is kept.
    squash: both sides become S, the aspect is lost."""
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


def resize_bicubic(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """(height, width, C): bicubic, with a filter as wide as the reduction asks for. Rounded and clipped, never wrapped."""
    from PIL import Image

    if image.shape[:2] == (height, width):
        return image
    if image.dtype == np.uint8:
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)).reshape(height, width, -1)
    top = np.iinfo(image.dtype).max
    planes = [Image.fromarray(image[..., c].astype(np.float32)) for c in range(image.shape[2])]  # Pillow cannot resample 16-bit integers
    out = np.stack([np.asarray(p.resize((width, height), Image.Resampling.BICUBIC)) for p in planes], axis=-1)
    return np.clip(np.rint(out), 0, top).astype(image.dtype)
