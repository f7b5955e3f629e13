"""What must not be shared: patients, identical images and near-duplicates between parts, and between pretraining and the test part.

A near-duplicate whose pixels are at hand and agree (encoders/confirm.py) is as sure as an identical image, and refuses: a recompressed
copy in the test part flatters a score no less. Where the pixels are elsewhere, as mostly those of pretraining, it is suspected. What the
hash cannot see is said in encoders/duplicates.py: a crop of 3 % or more, a flip, a rotation.

Shapes: N images of a task, P images of an encoder's manifest.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from encoders.runtime.errors import InputError
from encoders.similarity.perceptual_hash import find_nearest_few
from transfer.tasks.split import Names, Split

CONFIRMED_NEAR_DUPLICATES = "near-duplicates, confirmed on their pixels,"
PixelsAgree = Callable[[int, int], bool]  # whether two rows of the store are one picture
MaybePixelsAgree = Callable[[int, int], bool | None]
NearCandidate = tuple[int, int, int]  # row of the other part (-1: not in the store), row of the image, bits
DescribePair = Callable[[int, int], str]


@dataclass(frozen=True)
class Leak:
    """One kind of overlap. `sure` ones refuse the bench; the others are suspected and only said."""

    what: str  # "patients", "identical images", "near-duplicates" (confirmed or not)
    between: str
    count: int
    examples: tuple[str, ...]
    sure: bool = True
    pairs: tuple[tuple[int, int], ...] = field(default=(), compare=False)  # rows of the store, for the picture

    def __str__(self) -> str:
        suspected = "" if self.sure else "suspected "
        return f"{self.count} {suspected}{self.what} between {self.between}, e.g. {'; '.join(self.examples)}"


def find_part_leaks(split: Split, key: np.ndarray, patient: np.ndarray, sha256: np.ndarray, by_split: bool = False) -> list[Leak]:
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


def find_near_duplicates(
    split: Split, key: np.ndarray, phash: np.ndarray, sha256: np.ndarray, same: PixelsAgree | None = None
) -> list[Leak]:
    """Images of one part whose perceptual hash nearly is that of an image of another part; identical ones are not counted again.

    phash: (N, 32).  same: asks the pixels of two rows; without it all are suspected."""
    leaks = []
    for a, b in (("train", "test"), ("val", "test"), ("train", "val")):
        left, right = split.rows(a), split.rows(b)
        right = right[~np.isin(sha256[right].astype(str), sha256[left].astype(str))]
        pairs, distance = find_nearest_few(phash[right], phash[left])
        found = [(int(left[j]), int(right[i]), int(d)) for (i, j), d in zip(pairs, distance, strict=True)]
        leaks += _build_near_leaks(
            found, f"{a} and {b}", lambda i, j: f"{key[i]} ~ {key[j]}", lambda i, j: None if same is None else same(i, j)
        )
    return leaks


def _build_near_leaks(found: Sequence[NearCandidate], between: str, told: DescribePair, same: MaybePixelsAgree) -> list[Leak]:
    """The confirmed and the suspected ones, each image of the second part once: confirmed if any of its candidates is."""
    sure: dict[int, NearCandidate] = {}
    maybe: dict[int, NearCandidate] = {}
    for candidate in found:
        other, image, _ = candidate
        if image not in sure:
            (sure if same(other, image) else maybe).setdefault(image, candidate)
    leaks = []
    for rows, confirmed in ((sure, True), ({i: c for i, c in maybe.items() if i not in sure}, False)):
        nearest = sorted(rows.values(), key=lambda c: c[2])
        if nearest:
            examples = tuple(f"{told(i, j)} ({d} of 256 bits)" for i, j, d in nearest[:3])
            pairs = tuple((i, j) for i, j, _ in nearest[:12] if i >= 0)
            leaks.append(
                Leak(CONFIRMED_NEAR_DUPLICATES if confirmed else "near-duplicates", between, len(nearest), examples, confirmed, pairs)
            )
    return leaks


def find_manifest_leaks(
    name: str,
    manifest: Mapping[str, np.ndarray],
    rows: np.ndarray,
    key: np.ndarray,
    patient: np.ndarray,
    sha256: np.ndarray,
    datasets: np.ndarray,
) -> list[Leak]:
    """Test images, and patients of the test part, that encoder `name` was pretrained on. rows: the test part's.  datasets: (N,) of each."""
    leaks = []
    seen = _is_member(digests_to_bytes(sha256[rows]), manifest.get("sha256"))
    if seen.any():
        told = tuple(str(key[i]) for i in rows[seen][:3])
        leaks.append(Leak("identical images", f"the pretraining of {name} and test", int(seen.sum()), told))
    met: list[str] = []
    who, of = patient[rows].astype(str), datasets[rows].astype(str)
    for dataset in np.unique(of):
        people = np.unique(who[of == dataset])
        met += people[_is_member(hash_patients(people, dataset), manifest.get("patient_hash"))].tolist()
    if met:
        leaks.append(Leak("patients", f"the pretraining of {name} and test", len(met), tuple(met[:3])))
    return leaks


def find_manifest_near_duplicates(
    name: str,
    manifest: Mapping[str, np.ndarray],
    rows: np.ndarray,
    key: np.ndarray,
    phash: np.ndarray,
    sha256: np.ndarray,
    same: PixelsAgree | None = None,
) -> list[Leak]:
    """Test images nearly equal to one that encoder `name` was pretrained on.

    Pixels are at hand for those images of the manifest that the task's store holds too, as when both were ingested together."""
    theirs = manifest.get("phash")
    if theirs is None or not len(theirs):
        return []
    rows = rows[~_is_member(digests_to_bytes(sha256[rows]), manifest.get("sha256"))]  # those are counted as identical
    pairs, distance = find_nearest_few(phash[rows], theirs)
    here = _rows_in_store(manifest.get("sha256"), np.unique(pairs[:, 1]), sha256)
    found = [(here.get(int(j), -1), int(rows[i]), int(d)) for (i, j), d in zip(pairs, distance, strict=True)]
    asked = lambda i, j: None if same is None or i < 0 else same(i, j)  # noqa: E731
    return _build_near_leaks(found, f"the pretraining of {name} and test", lambda i, j: str(key[j]), asked)


def _rows_in_store(theirs: Any, wanted: np.ndarray, sha256: np.ndarray) -> dict[int, int]:
    """For those images `wanted` of a manifest that a store holds, their rows there."""
    if theirs is None or not len(wanted):
        return {}
    where = {bytes.fromhex(str(s)): row for row, s in enumerate(sha256)}
    found = {int(j): where.get(bytes(theirs[j])) for j in wanted}
    return {j: row for j, row in found.items() if row is not None}


def digests_to_bytes(sha256: Names) -> np.ndarray:
    """Hex digests as (N, 32) bytes."""
    return np.array([list(bytes.fromhex(str(s))) for s in sha256], dtype=np.uint8).reshape(-1, 32)


def hash_patients(patient: Names, dataset: str) -> np.ndarray:
    """(N, 32) hashes of `dataset:patient`, as manifests hold them: pseudonymous, not anonymous."""
    return np.array([list(hashlib.sha256(f"{dataset}:{p}".encode()).digest()) for p in patient], dtype=np.uint8).reshape(-1, 32)


def _is_member(mine: np.ndarray, theirs: Any) -> np.ndarray:
    """For each row of `mine` (N, 32) whether `theirs` (P, 32) has it."""
    if theirs is None or not len(theirs):
        return np.zeros(len(mine), dtype=bool)
    whole = np.dtype((np.void, mine.shape[1]))
    return np.isin(np.ascontiguousarray(mine).view(whole).ravel(), np.ascontiguousarray(theirs).view(whole).ravel())


def check_leaks(task: str, leaks: Sequence[Leak], allow: bool) -> tuple[list[str], list[str]]:
    """What to stamp on records, and what to warn of. Raises InputError for a sure leak unless it is allowed."""
    sure, suspected = [str(leak) for leak in leaks if leak.sure], [str(leak) for leak in leaks if not leak.sure]
    if sure and not allow:
        told = "\n  ".join(sure)
        raise InputError(
            f"task {task!r} leaks:\n  {told}\nA score on it would flatter. Mend the split (`--split-column none --replace` keeps "
            f"patients, identical images and their copies together) or what was pretrained on (`transfer tasks keys {task} --part train`), "
            "or run with --allow-leakage, which stamps every record and table"
        )
    return sure, suspected
