"""Copies within a store whose pixels differ: recompressed, resized, re-windowed, flipped, rotated by quarter turns, inverted or padded.

They are found with the perceptual hash, confirmed on the pixels, and cached, because they depend only on the store's pixels.

Shapes: N images, P pairs.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from encoders.runtime.arrays import Array, IntArray
from encoders.runtime.cached_array import read_cached_array, write_cached_array
from encoders.runtime.config import json_digest
from encoders.runtime.paths import cache_dir
from encoders.similarity.perceptual_hash import HASH_RADIUS
from encoders.similarity.pixel_check import MIN_CORRELATION, ImageReader, is_same_image
from encoders.similarity.turned_search import SIGNS_VERSION, Candidate, HashedImages, find_candidates, read_signs
from encoders.similarity.turns import TURNS, inverse_turn


class ComparableImages(HashedImages, ImageReader, Protocol):
    """The part of a store that holds images and their hashes, and reads images in [0, 1]."""


def find_copies(store: ComparableImages) -> IntArray:
    """(P, 2) pairs i < j of copies whose pixels differ, from the cache if possible.

    Of several images with the same hash, each is compared with the first."""
    settings = [store.fingerprint, HASH_RADIUS, MIN_CORRELATION, len(TURNS), SIGNS_VERSION]
    path = cache_dir() / "copies" / f"{json_digest(settings, 32)}.npy"
    cached = read_cached_array(path)
    if cached is not None and cached.ndim == 2 and cached.dtype == np.int64:
        return cached
    pairs = compute_copies(store)
    with write_cached_array(path) as part, open(part, "wb") as file:
        np.save(file, pairs)
    return pairs


def compute_copies(store: ComparableImages) -> IntArray:
    """The pairs of `find_copies`, without the cache."""
    first = np.sort(np.unique(store.column("sha256"), return_index=True)[1])
    signs = read_signs(store)[first]
    candidates = find_candidates(signs, signs[:, 0], signs[:, 2], max_matches=9)  # each hash finds itself as well
    pairs: set[tuple[int, int]] = set()
    for a, b, turn in list_pairs(candidates):
        i, j = int(first[a]), int(first[b])
        if (i, j) not in pairs and is_same_image(store, i, j, TURNS[turn]):
            pairs.add((i, j))
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


def list_pairs(candidates: Iterable[Candidate]) -> Iterator[tuple[int, int, int]]:
    """(i, j, turn) with i < j, each once: j may be a copy of i under the turn. Of several images with the same hash, only the first is
    paired with an image, so that a thousand blank images do not become a million pairs."""
    seen: set[tuple[int, int, int]] = set()
    equal: set[tuple[int, int]] = set()  # (image, turn) with an equal hash
    for c in candidates:
        if c.bits == 0 and (c.query, c.turn) in equal:
            continue
        if c.bits == 0:
            equal.add((c.query, c.turn))
        pair = (c.query, c.match, c.turn) if c.query < c.match else (c.match, c.query, inverse_turn(c.turn))
        if c.query != c.match and pair not in seen:
            seen.add(pair)
            yield pair


def canonical_hashes(store: ComparableImages, sha256: Array) -> Array:
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
