"""Data leakage: patients, identical images and near-duplicates shared by two parts, or by the pretraining data and the test part.

Parts and identical images are compared here, near-duplicates in transfer/leakage/image_copies.py, patients of a manifest and patients with
nearly equal ids in transfer/leakage/patients.py.

Shapes: N images of a task, P images of an encoder's manifest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.local_notes import prints_to_job_log
from encoders.similarity.pixel_check import ImageReader
from transfer.tasks.options import Part
from transfer.tasks.split import Names, Split

NOT_DETECTED = (
    "crops, rotations by other than quarter turns, elastic changes, strong changes of contrast such as local histogram "
    "equalization, and other images of the same patient whose id differs"
)


MAX_EXAMPLES, MAX_PAIRS = 3, 12  # printed; drawn


class PicturedPair(NamedTuple):
    """Two images to draw side by side, each a store and a row of it."""

    left: tuple[ImageReader, int]
    right: tuple[ImageReader, int]


@dataclass(frozen=True)
class Leak:
    """One kind of overlap. A confirmed one stops the benchmark; a suspected one only gives a warning.

    examples: every image, pair or patient that it is about. They are for the user of this machine only; `str` gives their number."""

    kind: str  # "patients", "identical images", "near-duplicates" (confirmed or not)
    between: str
    count: int
    examples: tuple[str, ...]
    confirmed: bool = True
    pairs: tuple[tuple[int, int], ...] = field(default=(), compare=False)  # rows of the task's store, for `draw_leak_pairs`
    pictures: tuple[PicturedPair, ...] = field(default=(), compare=False)  # further pairs, of any stores

    def __str__(self) -> str:
        suspected = "" if self.confirmed else "suspected "
        return f"{self.count} {suspected}{self.kind} between {self.between}"

    def with_examples(self) -> str:
        """The number with the first examples, for a terminal."""
        return f"{self}, e.g. {'; '.join(self.examples[:MAX_EXAMPLES])}"


PART_PAIRS: tuple[tuple[Part, Part], ...] = (("train", "test"), ("val", "test"), ("train", "val"))


def find_part_leaks(split: Split, key: Array, patient: Array, sha256: Array, by_split: bool = False) -> list[Leak]:
    """Patients and identical images that are in two parts. by_split: equal patient ids in different parts are different patients."""
    leaks = []
    for a, b in PART_PAIRS:
        left, right = split.rows(a), split.rows(b)
        for kind, column in (("identical images", sha256),) if by_split else (("patients", patient), ("identical images", sha256)):
            shared = np.intersect1d(column[left].astype(str), column[right].astype(str))
            if not len(shared):
                continue
            pairs = _list_pairs(column, left, right, shared)
            names = map(str, shared) if kind == "patients" else (f"{key[i]} = {key[j]}" for i, j in pairs)
            leaks.append(Leak(kind, f"{a} and {b}", len(shared), tuple(names), pairs=tuple(pairs[:MAX_PAIRS])))
    return leaks


def _list_pairs(column: Array, left: Array, right: Array, shared: Array) -> list[tuple[int, int]]:
    """One pair of rows for each shared value: the first of either part that has it."""
    values = column.astype(str)
    firsts = []
    for rows in (left, right):
        found, first = np.unique(values[rows], return_index=True)
        firsts.append(rows[first[np.searchsorted(found, shared)]].tolist())
    return list(zip(*firsts, strict=True))


def find_manifest_leaks(name: str, manifest: Mapping[str, Array], rows: Array, key: Array, sha256: Array) -> list[Leak]:
    """Test images that encoder `name` was pretrained on.  manifest: its `sha256`, (P, 32).  rows: of the test part.  key, sha256: (N,)."""
    seen = is_member(digests_to_bytes(sha256[rows]), manifest.get("sha256"))
    if not seen.any():
        return []
    return [Leak("identical images", f"the pretraining of {name} and test", int(seen.sum()), tuple(str(key[i]) for i in rows[seen]))]


def digests_to_bytes(sha256: Names) -> Array:
    """Hex digests as (N, 32) bytes."""
    return np.array([list(bytes.fromhex(str(s))) for s in sha256], dtype=np.uint8).reshape(-1, 32)


def is_member(ours: Array, theirs: Array | None) -> Array:
    """(N,) whether each row of `ours` (N, 32) is a row of `theirs` (P, 32)."""
    if theirs is None or not len(theirs):
        return np.zeros(len(ours), dtype=bool)
    row = np.dtype((np.void, ours.shape[1]))
    return np.isin(np.ascontiguousarray(ours).view(row).ravel(), np.ascontiguousarray(theirs).view(row).ravel())


def check_leaks(task: str, leaks: Sequence[Leak], allow: bool, listed_in: str = "") -> tuple[list[str], list[str]]:
    """Descriptions of the confirmed and of the suspected leaks, with counts and without names. Raises InputError for a confirmed one
    unless `allow` is set; its message has examples, except in the log of a job.

    listed_in: the file that lists all of them."""
    confirmed = [str(leak) for leak in leaks if leak.confirmed]
    suspected = [str(leak) for leak in leaks if not leak.confirmed]
    if confirmed and not allow:
        shown = confirmed if prints_to_job_log() else [leak.with_examples() for leak in leaks if leak.confirmed]
        listed = "\n  ".join(shown) + (f"\nAll are listed in {listed_in}" if listed_in else "")
        raise InputError(
            f"task {task!r} has data leakage:\n  {listed}\nIts scores would be too high. Change the split (`transfer tasks add ... "
            "--split-column none --replace` keeps patients, identical images and near-duplicates in one part), or pretrain on the train "
            f"part only (`transfer tasks keys {task} --part train`), or run with --allow-leakage, which marks every record and table. "
            f"Not detected are {NOT_DETECTED}"
        )
    return confirmed, suspected
