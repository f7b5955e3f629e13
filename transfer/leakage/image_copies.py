"""Near-duplicates of test images: in another part, and among the images that an encoder was pretrained on.

A near-duplicate is confirmed if the pixels of both images are available locally and agree (encoders/similarity/pixel_check.py). It then
stops the benchmark as an identical image does, because a recompressed copy inflates test scores in the same way. Without the pixels, as for
most pretraining images, it is only suspected. Perceptual hashes do not detect crops of 3 % or more, flips and rotations
(encoders/similarity/perceptual_hash.py).

Shapes: N images of a task, P images of an encoder's manifest.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from encoders.runtime.arrays import Array
from encoders.similarity.hash_search import find_nearest_few
from transfer.leakage.check import PART_PAIRS, Leak, digests_to_bytes, is_member
from transfer.tasks.split import Split

CONFIRMED_NEAR_DUPLICATES = "near-duplicates, confirmed on their pixels,"
PixelsAgree = Callable[[int, int], bool]  # whether two rows of the store show the same image
MaybePixelsAgree = Callable[[int, int], bool | None]  # None: the pixels are not available
NearCandidate = tuple[int, int, int]  # row of the other part (-1: not in the store), row of the image, Hamming distance in bits
DescribePair = Callable[[int, int], str]


def find_near_duplicates(split: Split, key: Array, phash: Array, sha256: Array, pixels_agree: PixelsAgree | None = None) -> list[Leak]:
    """Images of one part whose perceptual hash is close to that of an image of another part; identical images are not counted again.

    phash: (N, 32).  pixels_agree: compares the pixels of two rows; without it, all are suspected only."""
    leaks = []
    for a, b in PART_PAIRS:
        left, right = split.rows(a), split.rows(b)
        right = right[~np.isin(sha256[right].astype(str), sha256[left].astype(str))]
        pairs, distance = find_nearest_few(phash[right], phash[left])
        candidates = [(int(left[j]), int(right[i]), int(d)) for (i, j), d in zip(pairs, distance, strict=True)]
        leaks += _build_near_leaks(
            candidates,
            f"{a} and {b}",
            lambda i, j: f"{key[i]} ~ {key[j]}",
            lambda i, j: None if pixels_agree is None else pixels_agree(i, j),
        )
    return leaks


def _build_near_leaks(
    candidates: Sequence[NearCandidate], between: str, describe: DescribePair, pixels_agree: MaybePixelsAgree
) -> list[Leak]:
    """One leak of the confirmed and one of the suspected images. An image is confirmed if one of its candidates is; each counts once."""
    confirmed: dict[int, NearCandidate] = {}
    suspected: dict[int, NearCandidate] = {}
    for candidate in candidates:
        other, image, _ = candidate
        if image not in confirmed:
            (confirmed if pixels_agree(other, image) else suspected).setdefault(image, candidate)
    leaks = []
    for rows, is_confirmed in ((confirmed, True), ({i: c for i, c in suspected.items() if i not in confirmed}, False)):
        nearest = sorted(rows.values(), key=lambda c: c[2])
        if nearest:
            examples = tuple(f"{describe(i, j)} ({d} of 256 bits)" for i, j, d in nearest[:3])
            pairs = tuple((i, j) for i, j, _ in nearest[:12] if i >= 0)
            kind = CONFIRMED_NEAR_DUPLICATES if is_confirmed else "near-duplicates"
            leaks.append(Leak(kind, between, len(nearest), examples, is_confirmed, pairs))
    return leaks


def find_manifest_near_duplicates(
    name: str,
    manifest: Mapping[str, Array],
    rows: Array,
    key: Array,
    phash: Array,
    sha256: Array,
    pixels_agree: PixelsAgree | None = None,
) -> list[Leak]:
    """Test images that are near-duplicates of an image that encoder `name` was pretrained on. Arguments as above.

    Pixels can be compared for those pretraining images that the task's store holds too, e.g. when both were ingested together."""
    theirs = manifest.get("phash")
    if theirs is None or not len(theirs):
        return []
    rows = rows[~is_member(digests_to_bytes(sha256[rows]), manifest.get("sha256"))]  # those are counted as identical
    pairs, distance = find_nearest_few(phash[rows], theirs)
    local = _rows_in_store(manifest.get("sha256"), np.unique(pairs[:, 1]), sha256)
    candidates = [(local.get(int(j), -1), int(rows[i]), int(d)) for (i, j), d in zip(pairs, distance, strict=True)]
    return _build_near_leaks(
        candidates,
        f"the pretraining of {name} and test",
        lambda i, j: str(key[j]),
        lambda i, j: None if pixels_agree is None or i < 0 else pixels_agree(i, j),
    )


def _rows_in_store(theirs: Array | None, images: Array, sha256: Array) -> dict[int, int]:
    """Row of the manifest -> row of the store, for those of the manifest's rows `images` that the store holds too."""
    if theirs is None or not len(images):
        return {}
    row_of = {bytes.fromhex(str(s)): row for row, s in enumerate(sha256)}
    rows = {int(j): row_of.get(bytes(theirs[j])) for j in images}
    return {j: row for j, row in rows.items() if row is not None}
