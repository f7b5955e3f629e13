"""Hashes for identical and nearly identical images.

The perceptual hash is a gradient hash: 128 bits state whether a cell is brighter than its left neighbour, and 128 whether it is brighter
than the cell above. Among the 17 million pairs of Kermany's 5,840 radiographs, different images differ in at least 12 of 256 bits, while
JPEG at quality 50, resizing and gamma 0.8 to 1.25 change at most 8. (With horizontal bits only, different images come as near as 8. With a
DCT hash different images are further apart, but a third of the gamma-changed copies leave that radius. 64 bits do not separate radiographs
at all.) Crops of 3 % are missed: the hash finds copies, not other images of the same patient.

Shapes: B images; H, W, C of one image.
"""

import hashlib
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import Array, FloatArray
from encoders.similarity.borders import Content, trim_borders

HASH_BITS, HASH_RADIUS = 256, 8  # copies differ in at most HASH_RADIUS bits, different images in more
HASH_COLUMNS = ("phash", "phash_signs")  # of a store: (N, 32) `phash256`; (N, 96) the other three rows of `hash_signs`
Hashes = NDArray[np.uint8]

_HASH_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def pixel_sha256(image: Array) -> str:
    """SHA-256 (64 hex digits) of the shape, the dtype and every pixel of an (H, W, C) image."""
    head = f"{'x'.join(map(str, image.shape))} {image.dtype.name} "
    digest = hashlib.sha256(head.encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def phash256(image: Array) -> Hashes:
    """(32,) bytes of an (H, W, C) image: 16 x 8 cells compared with the left neighbour, 8 x 16 with the cell above."""
    gray = to_gray(image)
    return np.asarray(gradient_signs(Content(gray, (0, 0, gray.shape[1], gray.shape[0])))[0])


def hash_signs(image: Array) -> Hashes:
    """(4, 32) of an (H, W, C) image: its `phash256` and the cells that are darker than their neighbour, then both of the image without its
    uniform borders (the same again if it has none).

    The hashes of its flips, quarter turns and inversion follow from these (encoders/similarity/turns.py)."""
    gray = to_gray(image)
    whole = gradient_signs(Content(gray, (0, 0, gray.shape[1], gray.shape[0])))
    trimmed = trim_borders(gray)
    return np.concatenate([whole, whole if trimmed is None else gradient_signs(trimmed)])


def hash_columns(signs: Array) -> dict[str, Array]:
    """The columns of a store for the `hash_signs` (N, 4, 32) of its images."""
    signs = np.asarray(signs, np.uint8).reshape(-1, 4, HASH_BITS // 8)
    return dict(zip(HASH_COLUMNS, (signs[:, 0], signs[:, 1:].reshape(-1, 3 * HASH_BITS // 8)), strict=True))


def to_gray(image: Array) -> NDArray[np.float32]:
    """(H, W) the luma of an (H, W, C) image."""
    return np.asarray(image[..., 0].astype(np.float32) if image.shape[2] == 1 else image.astype(np.float32) @ _HASH_LUMA)


def gradient_signs(content: Content) -> Hashes:
    """(2, 32) the cells that are brighter than their left or upper neighbour, and those that are darker."""
    from PIL import Image

    picture, antialiased = Image.fromarray(content.gray), Image.Resampling.BILINEAR
    wide = np.asarray(picture.resize((9, 16), antialiased, box=content.box))  # (16, 9)
    high = np.asarray(picture.resize((16, 9), antialiased, box=content.box))  # (9, 16)
    return np.asarray(pack_signs(wide[None], high[None])[0])


def pack_signs(wide: Array, high: Array) -> Hashes:
    """(B, 2, 32) bits of the cells above and below their neighbour.  wide: (B, 16, 9).  high: (B, 9, 16)."""
    pairs = (wide[:, :, 1:], wide[:, :, :-1]), (high[:, 1:], high[:, :-1])
    signs = [np.concatenate([compare(a, b).reshape(len(wide), -1) for a, b in pairs], axis=1) for compare in (np.greater, np.less)]
    return np.packbits(np.stack(signs, axis=1), axis=2)


def hash_signs_tiles(gray: NDArray[np.uint8]) -> Hashes:
    """(B, 4, 32): `hash_signs` of each of (B, H, W) gray images, in one call, which is faster for small images."""
    _, height, width = gray.shape
    images = gray.astype(np.float64)
    wide = shrink_axis(shrink_axis(images, bilinear_weights(width, 9), 2), bilinear_weights(height, 16), 1)  # (B, 16, 9)
    high = shrink_axis(shrink_axis(images, bilinear_weights(width, 16), 2), bilinear_weights(height, 9), 1)  # (B, 9, 16)
    whole = pack_signs(wide, high)
    contents = [trim_borders(image.astype(np.float32)) for image in gray]
    trimmed = [signs if content is None else gradient_signs(content) for signs, content in zip(whole, contents, strict=True)]
    return np.concatenate([whole, np.array(trimmed, np.uint8).reshape(whole.shape)], axis=1)


@cache
def bilinear_weights(side: int, cells: int) -> FloatArray:
    """(cells, side) weights of Pillow's antialiased bilinear resize along an axis: triangles twice as wide as a cell, with sum 1."""
    scale = side / cells
    reach = max(scale, 1.0)
    centres = (np.arange(cells)[:, None] + 0.5) * scale  # (cells, 1)
    weights = np.maximum(0, 1 - np.abs((np.arange(side) + 0.5 - centres) / reach))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def shrink_axis(images: FloatArray, weights: FloatArray, axis: int) -> FloatArray:
    """(B, H, W) resized along an axis, rounded to float32 as in Pillow, so that flat areas set no bits."""
    small = images @ weights.T if axis == 2 else weights @ images
    return small.astype(np.float32).astype(np.float64)


def group_exact_duplicates(sha256: Sequence[str] | Array) -> list[list[int]]:
    """Groups of two or more rows with the same hash, in order of their first row."""
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(sha256):
        groups.setdefault(str(name), []).append(row)
    return [rows for rows in groups.values() if len(rows) > 1]
