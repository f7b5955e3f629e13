"""Which images of a store are copies of one another though their pixels differ: recompressed, resized, re-windowed.

Found by the perceptual hash, confirmed on the pixels, and kept in the cache, because they are a function of the store's pixels alone.

Shapes: N images, P pairs.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.config import json_digest
from encoders.runtime.files import atomic_write
from encoders.runtime.paths import cache_dir
from encoders.similarity.perceptual_hash import HASH_RADIUS, find_nearest_few
from encoders.similarity.pixel_check import MIN_CORRELATION, is_same_image


def find_copies(store: Any) -> NDArray[np.int64]:
    """(P, 2) pairs i < j of images with unlike pixels that show one picture; of images with one hash each is asked beside the first."""
    path = cache_dir() / "copies" / f"{json_digest([store.fingerprint, HASH_RADIUS, MIN_CORRELATION], 32)}.npy"
    try:
        kept: NDArray[np.int64] = np.load(path, allow_pickle=False)
        return kept
    except (FileNotFoundError, ValueError, EOFError):
        pairs = compute_copies(store)
    with atomic_write(path) as part, open(part, "wb") as file:
        np.save(file, pairs)
    return pairs


def compute_copies(store: Any) -> NDArray[np.int64]:
    """The same, computed."""
    phash, first = store.column("phash"), np.sort(np.unique(store.column("sha256"), return_index=True)[1])
    unique, one, of = np.unique(phash[first], axis=0, return_index=True, return_inverse=True)
    alike = [(first[one[h]], row) for h, row in zip(of.ravel(), first, strict=True) if first[one[h]] != row]
    near = find_nearest_few(unique, unique, most=9)[0]  # itself among them
    apart = [(first[one[i]], first[one[j]]) for i, j in near if i < j]
    pairs = sorted({(int(min(p)), int(max(p))) for p in [*alike, *apart]})
    return np.array([p for p in pairs if is_same_image(store, *p)], dtype=np.int64).reshape(-1, 2)


def canonical_hashes(store: Any, sha256: NDArray[Any]) -> NDArray[Any]:
    """(N,) a name for every image's picture: its sha256, or that of the copy that stands for it."""
    if not store.has("phash"):
        return sha256
    over = {name: name for name in map(str, sha256)}

    def root(name: str) -> str:
        while over[name] != name:
            name = over[name]
        return name

    for i, j in find_copies(store):
        a, b = sorted((root(str(sha256[i])), root(str(sha256[j]))))
        over[b] = a
    return np.array([root(str(name)) for name in sha256], dtype=object)
