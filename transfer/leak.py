"""What must not be shared: patients, identical images and near-duplicates between parts, and between pretraining and the test part.

What the hash of near-duplicates cannot see is said in encoders/duplicates.py (a crop of 3 % or more, a flip, a rotation).

Shapes: N images of a task, P images of an encoder's manifest.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from encoders.runtime.errors import InputError
from transfer.split import Names, Split

RADIUS = 8  # of 256 bits: no two patients among 3,000 radiographs were that close; JPEG quality 50, resizing and gamma stay within


@dataclass(frozen=True)
class Leak:
    """One kind of overlap. `sure` ones refuse the bench; the others are suspected and only said."""

    what: str  # "patients", "identical images", "near-duplicates"
    between: str
    count: int
    examples: tuple[str, ...]
    sure: bool = True
    pairs: tuple[tuple[int, int], ...] = field(default=(), compare=False)  # rows of the store, for the picture

    def __str__(self) -> str:
        suspected = "" if self.sure else "suspected "
        return f"{self.count} {suspected}{self.what} between {self.between}, e.g. {'; '.join(self.examples)}"


def between_parts(split: Split, key: np.ndarray, patient: np.ndarray, sha256: np.ndarray, by_split: bool = False) -> list[Leak]:
    """Patients and identical images that stand in two parts. by_split: equal patient ids in different parts are different people."""
    leaks = []
    for a, b in (("train", "test"), ("val", "test"), ("train", "val")):
        left, right = split.rows(a), split.rows(b)
        for what, column in (("identical images", sha256),) if by_split else (("patients", patient), ("identical images", sha256)):
            shared = np.intersect1d(column[left].astype(str), column[right].astype(str))
            if not len(shared):
                continue
            pairs = _first_pairs(column, left, right, shared)
            names = [str(s) for s in shared[:3]] if what == "patients" else [f"{key[i]} = {key[j]}" for i, j in pairs[:3]]
            leaks.append(Leak(what, f"{a} and {b}", len(shared), tuple(names), pairs=tuple(pairs)))
    return leaks


def _first_pairs(column: np.ndarray, left: np.ndarray, right: np.ndarray, shared: np.ndarray, most: int = 12) -> list[tuple[int, int]]:
    """One pair of rows for each of the first shared values."""
    values = column.astype(str)
    return [(int(left[values[left] == s][0]), int(right[values[right] == s][0])) for s in shared[:most]]


def near_between_parts(split: Split, key: np.ndarray, phash: np.ndarray, sha256: np.ndarray, radius: int = RADIUS) -> list[Leak]:
    """Suspected: images of two parts whose perceptual hashes differ in at most `radius` of 256 bits. phash: (N, 32)."""
    from encoders.duplicates import near_pairs

    leaks = []
    for a, b in (("train", "test"), ("val", "test"), ("train", "val")):
        left, right = split.rows(a), split.rows(b)
        pairs, distance = near_pairs(phash[left], phash[right], radius)
        rows = [
            (int(left[i]), int(right[j]), int(d)) for (i, j), d in zip(pairs, distance, strict=True) if sha256[left[i]] != sha256[right[j]]
        ]
        if rows:
            rows.sort(key=lambda r: r[2])
            told = tuple(f"{key[i]} ~ {key[j]} ({d} of 256 bits)" for i, j, d in rows[:3])
            leaks.append(Leak("near-duplicates", f"{a} and {b}", len(rows), told, False, tuple((i, j) for i, j, _ in rows[:12])))
    return leaks


def with_manifest(
    name: str, manifest: Mapping[str, np.ndarray], rows: np.ndarray, key: np.ndarray, patient: np.ndarray, sha256: np.ndarray, dataset: str
) -> list[Leak]:
    """Test images, and patients of the test part, that encoder `name` was pretrained on. rows: the test part's."""
    leaks = []
    seen = _member(sha_bytes(sha256[rows]), manifest.get("sha256"))
    if seen.any():
        told = tuple(str(key[i]) for i in rows[seen][:3])
        leaks.append(Leak("identical images", f"the pretraining of {name} and test", int(seen.sum()), told))
    people = np.unique(patient[rows].astype(str))
    met = _member(patient_bytes(people, dataset), manifest.get("patient_hash"))
    if met.any():
        leaks.append(Leak("patients", f"the pretraining of {name} and test", int(met.sum()), tuple(map(str, people[met][:3]))))
    return leaks


def near_manifest(
    name: str,
    manifest: Mapping[str, np.ndarray],
    rows: np.ndarray,
    key: np.ndarray,
    phash: np.ndarray,
    sha256: np.ndarray,
    radius: int = RADIUS,
) -> list[Leak]:
    """Suspected: test images nearly equal to one that encoder `name` was pretrained on."""
    from encoders.duplicates import near_pairs

    theirs = manifest.get("phash")
    if theirs is None or not len(theirs):
        return []
    same = _member(sha_bytes(sha256[rows]), manifest.get("sha256"))
    rows = rows[~same]  # those are counted as identical
    if not len(rows):
        return []
    pairs, distance = near_pairs(phash[rows], theirs, radius)
    close = np.unique(pairs[:, 0]) if len(pairs) else np.empty(0, int)
    if not len(close):
        return []
    told = tuple(f"{key[rows[i]]} ({int(distance[pairs[:, 0] == i].min())} of 256 bits)" for i in close[:3])
    return [Leak("near-duplicates", f"the pretraining of {name} and test", len(close), told, False)]


def sha_bytes(sha256: Names) -> np.ndarray:
    """Hex digests as (N, 32) bytes."""
    return np.array([list(bytes.fromhex(str(s))) for s in sha256], dtype=np.uint8).reshape(-1, 32)


def patient_bytes(patient: Names, dataset: str) -> np.ndarray:
    """(N, 32) hashes of `dataset:patient`, as manifests hold them: pseudonymous, not anonymous."""
    return np.array([list(hashlib.sha256(f"{dataset}:{p}".encode()).digest()) for p in patient], dtype=np.uint8).reshape(-1, 32)


def _member(mine: np.ndarray, theirs: Any) -> np.ndarray:
    """For each row of `mine` (N, 32) whether `theirs` (P, 32) has it."""
    if theirs is None or not len(theirs):
        return np.zeros(len(mine), dtype=bool)
    whole = np.dtype((np.void, mine.shape[1]))
    return np.isin(np.ascontiguousarray(mine).view(whole).ravel(), np.ascontiguousarray(theirs).view(whole).ravel())


def judged(task: str, leaks: Sequence[Leak], allow: bool) -> tuple[list[str], list[str]]:
    """What to stamp on records, and what to warn of. Raises InputError for a sure leak unless it is allowed."""
    sure, suspected = [str(leak) for leak in leaks if leak.sure], [str(leak) for leak in leaks if not leak.sure]
    if sure and not allow:
        told = "\n  ".join(sure)
        raise InputError(
            f"task {task!r} leaks:\n  {told}\nA score on it would flatter. Mend the split (`--split-column none --replace` keeps "
            f"patients and identical images together) or what was pretrained on (`transfer tasks keys {task} --part train`), "
            "or run with --allow-leakage, which stamps every record and table"
        )
    return sure, suspected
