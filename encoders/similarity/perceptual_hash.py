"""Hashes for identical and nearly identical images.

The perceptual hash is a gradient hash: 128 bits state whether a cell is brighter than its left neighbour, and 128 whether it is brighter
than the cell above. Among the 17 million pairs of Kermany's 5,840 radiographs, different images differ in at least 12 of 256 bits, while
JPEG at quality 50, resizing and gamma 0.8 to 1.25 change at most 8. (With horizontal bits only, different images come as near as 8. With a
DCT hash different images are further apart, but a third of the gamma-changed copies leave that radius. 64 bits do not separate radiographs
at all.) Crops of 3 % are missed: the hash finds copies, not other images of the same patient.

Shapes: N, M images; P pairs; H, W, C of one image.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import Array, FloatArray, IntArray

HASH_BITS, HASH_RADIUS = 256, 8  # copies differ in at most HASH_RADIUS bits, different images in more
HASH_CHUNK = 4096  # query hashes per search: bounds the matches in a corpus of similar images to a few hundred MB
_HASH_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def pixel_sha256(image: Array) -> str:
    """SHA-256 (64 hex digits) of the shape, the dtype and every pixel of an (H, W, C) image."""
    head = f"{'x'.join(map(str, image.shape))} {image.dtype.name} "
    digest = hashlib.sha256(head.encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def phash256(image: Array) -> NDArray[np.uint8]:
    """(32,) bytes of an (H, W, C) image: 16 x 8 cells compared with the left neighbour, 8 x 16 with the cell above."""
    from PIL import Image

    gray = image[..., 0].astype(np.float32) if image.shape[2] == 1 else image.astype(np.float32) @ _HASH_LUMA  # (H, W)
    picture, antialiased = Image.fromarray(gray), Image.Resampling.BILINEAR
    wide = np.asarray(picture.resize((9, 16), antialiased))  # (16, 9)
    high = np.asarray(picture.resize((16, 9), antialiased))  # (9, 16)
    return np.packbits([*(wide[:, 1:] > wide[:, :-1]).ravel(), *(high[1:] > high[:-1]).ravel()])


def phash256_tiles(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(B, 32): `phash256` of each of (B, H, W) gray images, in one call, which is faster for small images."""
    _, height, width = gray.shape
    images = gray.astype(np.float64)
    wide = shrink_axis(shrink_axis(images, bilinear_weights(width, 9), 2), bilinear_weights(height, 16), 1)  # (B, 16, 9)
    high = shrink_axis(shrink_axis(images, bilinear_weights(width, 16), 2), bilinear_weights(height, 9), 1)  # (B, 9, 16)
    bits = wide[:, :, 1:] > wide[:, :, :-1], high[:, 1:] > high[:, :-1]
    return np.packbits(np.concatenate([part.reshape(len(gray), -1) for part in bits], axis=1), axis=1)


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


def find_near_pairs(a: NDArray[np.uint8], b: NDArray[np.uint8] | None = None, radius: int = HASH_RADIUS) -> tuple[IntArray, IntArray]:
    """Pairs (P, 2) of rows of `a` (N, 32) and of `b` (M, 32) that differ in at most `radius` bits, and their distances (P,).

    Without `b`: pairs i < j within `a`. Ordered by distance, then by row."""
    matches = list(compare_hashes(a, a if b is None else b, radius))
    if not matches:
        return np.empty((0, 2), np.int64), np.empty(0, np.int64)
    pairs, far = np.concatenate([p for p, _ in matches]), np.concatenate([d for _, d in matches])
    if b is None:
        once = pairs[:, 0] < pairs[:, 1]
        pairs, far = pairs[once], far[once]
    order = np.lexsort((pairs[:, 1], pairs[:, 0], far))
    return pairs[order], far[order]


def find_nearest_few(a: NDArray[np.uint8], b: NDArray[np.uint8], radius: int = HASH_RADIUS, max_matches: int = 8) -> tuple[Array, Array]:
    """As `find_near_pairs`, but with at most the `max_matches` nearest rows of `b` for each row of `a`, so that a thousand blank images do
    not become a million pairs.

    Ordered by row of `a`, then by distance, then by row of `b`."""
    pairs, far = np.empty((0, 2), np.int64), np.empty(0, np.int64)
    for more, distance in compare_hashes(a, b, radius):
        pairs, far = np.concatenate([pairs, more]), np.concatenate([far, distance])
        order = np.lexsort((pairs[:, 1], far, pairs[:, 0]))
        pairs, far = pairs[order], far[order]
        first = np.searchsorted(pairs[:, 0], pairs[:, 0])  # where each row's pairs begin
        kept = np.arange(len(pairs)) - first < max_matches
        pairs, far = pairs[kept], far[kept]
    return pairs, far


def compare_hashes(a: NDArray[np.uint8], b: NDArray[np.uint8], radius: int) -> Iterator[tuple[IntArray, IntArray]]:
    """All pairs (p, 2) of rows within the radius and their distances (p,), in chunks. Exact: every pair is compared.

    The smaller side is indexed, because it fits the processor's cache, and the larger is searched: 25,000 x 1,000,000 in under a minute
    on one core. A multi-index hash is fast for random hashes, but those of radiographs agree in so many bits that it takes seven times as
    long."""
    import faiss

    if not len(a) or not len(b):
        return
    swapped = len(a) > len(b)
    indexed, queries = (b, a) if swapped else (a, b)
    bank = faiss.IndexBinaryFlat(HASH_BITS)
    bank.add(np.ascontiguousarray(indexed))
    for start in range(0, len(queries), HASH_CHUNK):
        # range_search returns distances strictly below its radius
        limits, distance, matches = bank.range_search(np.ascontiguousarray(queries[start : start + HASH_CHUNK]), radius + 1)
        rows = start + np.repeat(np.arange(len(limits) - 1), np.diff(limits.astype(np.int64)).astype(np.int64))
        pair = [rows, matches.astype(np.int64)] if swapped else [matches.astype(np.int64), rows]
        if len(rows):
            yield np.stack(pair, axis=1).astype(np.int64), distance.astype(np.int64)


def group_exact_duplicates(sha256: Sequence[str] | Array) -> list[list[int]]:
    """Groups of two or more rows with the same hash, in order of their first row."""
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(sha256):
        groups.setdefault(str(name), []).append(row)
    return [rows for rows in groups.values() if len(rows) > 1]
