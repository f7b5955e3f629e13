"""Copies within a store whose pixels differ: recompressed, resized or re-windowed images.

They are found with the perceptual hash, confirmed on the pixels, and cached, because they depend only on the store's pixels.

Shapes: N images, P pairs.
"""

from typing import Protocol

import numpy as np

from encoders.runtime.arrays import Array, IntArray
from encoders.runtime.config import json_digest
from encoders.runtime.files import atomic_write
from encoders.runtime.paths import cache_dir
from encoders.similarity.perceptual_hash import HASH_RADIUS, find_nearest_few
from encoders.similarity.pixel_check import MIN_CORRELATION, ImageReader, is_same_image


class HashedImages(ImageReader, Protocol):
    """The part of a store that holds images and their hashes."""

    @property
    def fingerprint(self) -> str: ...

    def has_column(self, name: str) -> bool: ...

    def column(self, name: str) -> Array: ...


def find_copies(store: HashedImages) -> IntArray:
    """(P, 2) pairs i < j of copies whose pixels differ, from the cache if possible.

    Of several images with the same hash, each is compared with the first."""
    path = cache_dir() / "copies" / f"{json_digest([store.fingerprint, HASH_RADIUS, MIN_CORRELATION], 32)}.npy"
    try:
        cached: IntArray = np.load(path, allow_pickle=False)
        return cached
    except (FileNotFoundError, ValueError, EOFError):
        pairs = compute_copies(store)
    with atomic_write(path) as part, open(part, "wb") as file:
        np.save(file, pairs)
    return pairs


def compute_copies(store: HashedImages) -> IntArray:
    """The pairs of `find_copies`, without the cache."""
    phash, first = store.column("phash"), np.sort(np.unique(store.column("sha256"), return_index=True)[1])
    unique, first_of, hash_of = np.unique(phash[first], axis=0, return_index=True, return_inverse=True)
    same_hash = [(first[first_of[h]], row) for h, row in zip(hash_of.ravel(), first, strict=True) if first[first_of[h]] != row]
    near = find_nearest_few(unique, unique, max_matches=9)[0]  # each hash finds itself as well
    near_hash = [(first[first_of[i]], first[first_of[j]]) for i, j in near if i < j]
    pairs = sorted({(int(min(p)), int(max(p))) for p in [*same_hash, *near_hash]})
    return np.array([p for p in pairs if is_same_image(store, *p)], dtype=np.int64).reshape(-1, 2)


def canonical_hashes(store: HashedImages, sha256: Array) -> Array:
    """(N,) sha256 of every image, or of the copy that represents it: images have the same value if they are copies.

    sha256: (N,).  Returned unchanged if the store has no perceptual hashes."""
    if not store.has_column("phash"):
        return sha256
    parent = {name: name for name in map(str, sha256)}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for i, j in find_copies(store):
        a, b = sorted((root(str(sha256[i])), root(str(sha256[j]))))
        parent[b] = a
    return np.array([root(str(name)) for name in sha256], dtype=object)
