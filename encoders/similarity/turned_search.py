"""Candidates for copies: images whose hash is near that of another image, or of one of its sixteen turns, with or without uniform borders.

Shapes: N queries, M images that are searched, P candidates.
"""

from typing import NamedTuple, Protocol

import numpy as np

from encoders.runtime.arrays import Array, IntArray
from encoders.runtime.cached_array import read_cached_array, write_cached_array
from encoders.runtime.config import json_digest
from encoders.runtime.paths import cache_dir
from encoders.similarity.hash_search import find_nearest_few
from encoders.similarity.perceptual_hash import Hashes, hash_signs
from encoders.similarity.turns import turn_hashes

SIGNS_VERSION = 1  # of `hash_signs`, in the name of cached files
MIN_SIGNS = 64  # cells, of 256, that differ from their neighbour; with fewer, as in a blank image, a turn is not recognisable


class HashedImages(Protocol):
    """The part of a store that holds images and their hashes."""

    def __len__(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def has_column(self, name: str) -> bool: ...

    def column(self, name: str) -> Array: ...

    def image(self, i: int) -> Array: ...


class Candidate(NamedTuple):
    """Image `query` under TURNS[turn] has a hash that differs from that of image `match` in `bits` of 256 bits."""

    query: int
    match: int
    bits: int
    turn: int


def read_signs(store: HashedImages) -> Hashes:
    """(N, 4, 32) `hash_signs` of all images of a store that has perceptual hashes.

    A store that was written before these were stored is read once, and they are cached."""
    phash = store.column("phash")
    if store.has_column("phash_signs"):
        return np.concatenate([phash[:, None], store.column("phash_signs").reshape(-1, 3, 32)], axis=1)
    path = cache_dir() / "signs" / f"{json_digest([store.fingerprint, SIGNS_VERSION], 32)}.npy"
    signs = read_cached_array(path)
    if signs is None or signs.shape != (len(store), 4, 32):
        signs = np.stack([hash_signs(store.image(i)) for i in range(len(store))])
        with write_cached_array(path) as part, open(part, "wb") as file:
            np.save(file, signs)
    # The stored hash stays: that of a tile is of the tile before its stain was normalized.
    return np.concatenate([phash[:, None], signs[:, 1:]], axis=1)


def find_candidates(queries: Hashes, plain: Hashes, trimmed: Hashes | None, max_matches: int = 8) -> list[Candidate]:
    """The candidates of each query, nearest first; of several ways in which two images match under one turn, the nearest.

    queries: (N, 4, 32) `hash_signs`.  plain, trimmed: (M, 32) hashes of the images that are searched, as they are and without borders
    (None: unknown).  max_matches: images for each hash of a query."""
    hashes, query, turn = list_query_hashes(queries)
    own = np.empty(0, np.int64) if trimmed is None else np.flatnonzero((trimmed != plain).any(axis=1))
    searched = plain if trimmed is None else np.concatenate([plain, trimmed[own]])
    image = np.concatenate([np.arange(len(plain)), own])
    pairs, bits = find_nearest_few(hashes, searched, max_matches=max_matches)
    found = np.stack([query[pairs[:, 0]], bits, image[pairs[:, 1]], turn[pairs[:, 0]]], axis=1)  # (P, 4)
    found = found[np.lexsort((found[:, 1], found[:, 3], found[:, 2], found[:, 0]))]
    new = np.ones(len(found), bool)
    new[1:] = (found[1:, [0, 2, 3]] != found[:-1, [0, 2, 3]]).any(axis=1)
    found = found[new]
    found = found[np.lexsort((found[:, 3], found[:, 2], found[:, 1], found[:, 0]))]
    return [Candidate(int(q), int(m), int(b), int(t)) for q, b, m, t in found]


def list_query_hashes(queries: Hashes) -> tuple[Hashes, IntArray, IntArray]:
    """The hashes to search for (Q, 32), and the query and the turn (Q,) of each: the sixteen turns of each image, and those of its content
    if it has a border."""
    hashes, query, turn = [queries[:, 0]], [np.arange(len(queries))], [np.zeros(len(queries), np.int64)]
    bordered = (queries[:, 2:] != queries[:, :2]).any(axis=(1, 2))
    for rises, falls, use in ((0, 1, np.ones(len(queries), bool)), (2, 3, bordered)):
        rows = np.flatnonzero(use & (np.bitwise_count(queries[:, rises] | queries[:, falls]).sum(axis=1) >= MIN_SIGNS))
        turned = turn_hashes(queries[rows, rises], queries[rows, falls])  # (16, R, 32)
        skip = 1 if rises == 0 else 0  # every image as it is has been listed
        hashes.append(turned[skip:].reshape(-1, 32))
        query.append(np.tile(rows, len(turned) - skip))
        turn.append(np.repeat(np.arange(skip, len(turned)), len(rows)))
    return np.concatenate(hashes), np.concatenate(query), np.concatenate(turn)
