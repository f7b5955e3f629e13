"""Equal and nearly equal images.

The perceptual hash is a gradient hash: 128 bits ask whether a cell is brighter than its left neighbour, 128 whether it is brighter than
the one above. Among the 17 million pairs of Kermany's 5,840 radiographs, different images came no closer than 12 of 256 bits, while JPEG
at quality 50, resizing and gamma 0.8 to 1.25 stay within 8. (All bits horizontal: strangers as near as 8. A DCT hash keeps strangers
further apart, but a third of the gamma-changed copies leave that radius. 64 bits cannot tell radiographs apart at all.) A crop by 3 % is
missed: this finds copies, not views of one patient.

Shapes: N, M images; P pairs; H, W, C of one image.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

HASH_BITS, HASH_RADIUS = 256, 8  # RADIUS: copies stay within, strangers do not come near
HASH_CHUNK = 4096  # hashes that ask at a time: what they find of a corpus of like images stays below a few hundred MB
_HASH_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def pixel_sha256(image: NDArray[Any]) -> str:
    """64 hex digits that stand for the shape, the dtype and every pixel of an (H, W, C) image."""
    head = f"{'x'.join(map(str, image.shape))} {image.dtype.name} "
    digest = hashlib.sha256(head.encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def phash256(image: NDArray[Any]) -> NDArray[np.uint8]:
    """(32,) bytes of an (H, W, C) image: 16 x 8 cells brighter than the one to the left, 8 x 16 brighter than the one above."""
    from PIL import Image

    gray = image[..., 0].astype(np.float32) if image.shape[2] == 1 else image.astype(np.float32) @ _HASH_LUMA  # (H, W)
    picture, antialiased = Image.fromarray(gray), Image.Resampling.BILINEAR
    wide = np.asarray(picture.resize((9, 16), antialiased))  # (16, 9)
    high = np.asarray(picture.resize((16, 9), antialiased))  # (9, 16)
    return np.packbits([*(wide[:, 1:] > wide[:, :-1]).ravel(), *(high[1:] > high[:-1]).ravel()])


def phash256_tiles(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(B, 32): `phash256` of each of (B, H, W) gray images, together: for small ones the calls cost more than the pixels."""
    _, height, width = gray.shape
    images = gray.astype(np.float64)
    wide = shrink_axis(shrink_axis(images, bilinear_weights(width, 9), 2), bilinear_weights(height, 16), 1)  # (B, 16, 9)
    high = shrink_axis(shrink_axis(images, bilinear_weights(width, 16), 2), bilinear_weights(height, 9), 1)  # (B, 9, 16)
    bits = wide[:, :, 1:] > wide[:, :, :-1], high[:, 1:] > high[:, :-1]
    return np.packbits(np.concatenate([each.reshape(len(gray), -1) for each in bits], axis=1), axis=1)


@cache
def bilinear_weights(side: int, cells: int) -> NDArray[np.float64]:
    """(cells, side) weights of Pillow's antialiased bilinear resize along an axis: a triangle twice as wide as a cell, its sum 1."""
    scale = side / cells
    reach = max(scale, 1.0)
    centres = (np.arange(cells)[:, None] + 0.5) * scale  # (cells, 1)
    weights = np.maximum(0, 1 - np.abs((np.arange(side) + 0.5 - centres) / reach))
    return weights / weights.sum(axis=1, keepdims=True)


def shrink_axis(images: NDArray[np.float64], weights: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """(B, H, W) resized along an axis, rounded to float32 as Pillow keeps it between the axes: so flat areas have no bits."""
    small = images @ weights.T if axis == 2 else weights @ images
    return small.astype(np.float32).astype(np.float64)


def find_near_pairs(
    a: NDArray[np.uint8], b: NDArray[np.uint8] | None = None, radius: int = HASH_RADIUS
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (P, 2) of rows of `a` (N, 32) and of `b` (M, 32) that differ in at most `radius` bits, and their distances (P,).

    Without `b`: pairs i < j within `a`. Ordered by distance, then by row."""
    found = list(compare_hashes(a, a if b is None else b, radius))
    if not found:
        return np.empty((0, 2), np.int64), np.empty(0, np.int64)
    pairs, far = np.concatenate([p for p, _ in found]), np.concatenate([d for _, d in found])
    if b is None:
        once = pairs[:, 0] < pairs[:, 1]
        pairs, far = pairs[once], far[once]
    order = np.lexsort((pairs[:, 1], pairs[:, 0], far))
    return pairs[order], far[order]


def find_nearest_few(
    a: NDArray[np.uint8], b: NDArray[np.uint8], radius: int = HASH_RADIUS, most: int = 8
) -> tuple[NDArray[Any], NDArray[Any]]:
    """As `near_pairs`, but for every row of `a` at most its `most` nearest of `b`, so that a thousand blank images are not a million pairs.

    Ordered by row of `a`, then by distance, then by row of `b`."""
    pairs, far = np.empty((0, 2), np.int64), np.empty(0, np.int64)
    for more, distance in compare_hashes(a, b, radius):
        pairs, far = np.concatenate([pairs, more]), np.concatenate([far, distance])
        order = np.lexsort((pairs[:, 1], far, pairs[:, 0]))
        pairs, far = pairs[order], far[order]
        first = np.searchsorted(pairs[:, 0], pairs[:, 0])  # where each row's pairs begin
        kept = np.arange(len(pairs)) - first < most
        pairs, far = pairs[kept], far[kept]
    return pairs, far


def compare_hashes(a: NDArray[np.uint8], b: NDArray[np.uint8], radius: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs within the radius, some at a time: exact, since every pair is compared.

    The smaller side is held, because it fits the processor's cache, and the larger asks: 25,000 x 1,000,000 in under a minute a core. A
    multi-index hash would find random hashes at once, but those of radiographs agree in so many bits that it took seven times as long."""
    import faiss

    if not len(a) or not len(b):
        return
    turned = len(a) > len(b)
    held, asking = (b, a) if turned else (a, b)
    bank = faiss.IndexBinaryFlat(HASH_BITS)
    bank.add(np.ascontiguousarray(held))
    for start in range(0, len(asking), HASH_CHUNK):
        limits, distance, found = bank.range_search(np.ascontiguousarray(asking[start : start + HASH_CHUNK]), radius + 1)  # strictly less
        rows = start + np.repeat(np.arange(len(limits) - 1), np.diff(limits.astype(np.int64)).astype(np.int64))
        pair = [rows, found.astype(np.int64)] if turned else [found.astype(np.int64), rows]
        if len(rows):
            yield np.stack(pair, axis=1).astype(np.int64), distance.astype(np.int64)


def group_exact_duplicates(sha256: Sequence[str] | NDArray[Any]) -> list[list[int]]:
    """Rows that share a hash, as groups of two or more, in order of their first row."""
    groups: dict[str, list[int]] = {}
    for row, each in enumerate(sha256):
        groups.setdefault(str(each), []).append(row)
    return [rows for rows in groups.values() if len(rows) > 1]
