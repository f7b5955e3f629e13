"""Near-duplicates of test images: in another part, and among the images that an encoder was pretrained on.

Every image of the test side is compared as it is, flipped, rotated by quarter turns, inverted, and without uniform borders
(encoders/similarity/turned_search.py). A near-duplicate is confirmed if the pixels of both images are available locally and agree
(encoders/similarity/pixel_check.py). It then stops the benchmark as an identical image does, because a recompressed copy inflates test
scores in the same way. Without the pixels, or if they do not agree, it is only suspected.

Shapes: N images of a task, P images of an encoder's manifest, S of a part.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from encoders.runtime.arrays import Array
from encoders.similarity.perceptual_hash import Hashes
from encoders.similarity.pixel_check import ImageReader, are_copies
from encoders.similarity.turned_search import Candidate, find_candidates
from encoders.similarity.turns import TURNS
from transfer.leakage.check import PART_PAIRS, Leak, PicturedPair, digests_to_bytes, is_member
from transfer.tasks.split import Split

CONFIRMED_NEAR_DUPLICATES = "near-duplicates, confirmed on their pixels,"
MAX_PICTURED = 12

ImageRow = tuple[ImageReader, int]  # an image: a store and a row of it
Located = Callable[[int], ImageRow | None]


@dataclass(frozen=True)
class TaskImages:
    """The images of a task. key, sha256: (N,).  signs: (N, 4, 32) hashes.  reader: reads their pixels; None: they are not available."""

    key: Array
    sha256: Array
    signs: Hashes
    reader: ImageReader | None

    def locate(self, row: int) -> ImageRow | None:
        return None if self.reader is None else (self.reader, row)


class PretrainingPixels(Protocol):
    """What is available locally of the images of a manifest."""

    def locate(self, image: int) -> ImageRow | None:
        """The image of a row of the manifest; None if its pixels are not available."""

    def trimmed_hashes(self) -> Hashes | None:
        """(P, 32) hashes without uniform borders; None if none is known."""


def find_near_duplicates(split: Split, images: TaskImages) -> list[Leak]:
    """Images of one part that are near-duplicates of an image of another part; identical images are not counted again."""
    leaks = []
    for a, b in PART_PAIRS:
        left, right = split.rows(a), split.rows(b)
        right = right[~np.isin(images.sha256[right].astype(str), images.sha256[left].astype(str))]
        candidates = find_candidates(images.signs[right], images.signs[left, 0], images.signs[left, 2])
        leaks += build_near_leaks(
            [c._replace(query=int(right[c.query]), match=int(left[c.match])) for c in candidates],
            f"{a} and {b}",
            lambda c: f"{images.key[c.match]} ~ {images.key[c.query]}",
            images.locate,
            images.locate,
        )
    return leaks


def find_manifest_near_duplicates(
    name: str, manifest: Mapping[str, Array], rows: Array, images: TaskImages, pretraining: PretrainingPixels
) -> list[Leak]:
    """Test images that are near-duplicates of an image that encoder `name` was pretrained on.

    manifest: the encoder's `sha256` and `phash`, (P, 32) each.  rows: of the test part."""
    theirs = manifest.get("phash")
    if theirs is None or not len(theirs):
        return []
    rows = rows[~is_member(digests_to_bytes(images.sha256[rows]), manifest.get("sha256"))]  # those are counted as identical
    candidates = find_candidates(images.signs[rows], theirs, pretraining.trimmed_hashes())
    return build_near_leaks(
        [c._replace(query=int(rows[c.query])) for c in candidates],
        f"the pretraining of {name} and test",
        lambda c: str(images.key[c.query]),
        pretraining.locate,
        images.locate,
    )


def build_near_leaks(
    candidates: Sequence[Candidate], between: str, describe: Callable[[Candidate], str], locate_match: Located, locate_query: Located
) -> list[Leak]:
    """One leak of the confirmed and one of the suspected images. An image is confirmed if one of its candidates is; each counts once."""
    confirmed: dict[int, Candidate] = {}
    suspected: dict[int, Candidate] = {}
    for candidate in candidates:
        image = candidate.query
        if image not in confirmed:
            agree = do_pixels_agree(candidate, locate_match(candidate.match), locate_query(image))
            (confirmed if agree else suspected).setdefault(image, candidate)
    leaks = []
    for rows, is_confirmed in ((confirmed, True), ({i: c for i, c in suspected.items() if i not in confirmed}, False)):
        nearest = sorted(rows.values(), key=lambda c: c.bits)
        if nearest:
            examples = tuple(f"{describe(c)} ({describe_match(c)})" for c in nearest)
            pictured = [(locate_match(c.match), locate_query(c.query)) for c in nearest[:MAX_PICTURED]]
            pairs = tuple(PicturedPair(left, right) for left, right in pictured if left is not None and right is not None)
            kind = CONFIRMED_NEAR_DUPLICATES if is_confirmed else "near-duplicates"
            leaks.append(Leak(kind, between, len(nearest), examples, is_confirmed, pictures=pairs))
    return leaks


def do_pixels_agree(candidate: Candidate, match: ImageRow | None, query: ImageRow | None) -> bool:
    """Whether the pixels of both images are available and show the same image under the candidate's turn."""
    if match is None or query is None:
        return False
    tested, other = (reader.unit_images([row])[0] for reader, row in (query, match))
    return are_copies(tested, other, TURNS[candidate.turn])


def describe_match(candidate: Candidate) -> str:
    """How near the hashes are, and what was done to the test image."""
    turn = str(TURNS[candidate.turn])
    return f"{turn + ', ' if turn else ''}{candidate.bits} of 256 bits"
