"""Who trains, who selects, who is tested: a part for every image, never two for a patient.

Shapes: N images, G groups (patients, united where they share an image, or a copy of it that its pixels confirm), C columns of the target.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from encoders.runtime.errors import InputError
from transfer.tasks.task import PARTS, SplitRule

Names = Sequence[Any] | np.ndarray
PART_NAMES = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "te"), "test"),
}


@dataclass(frozen=True)
class Split:
    """part: (N,) of "train", "val", "test" or "" (left out).  hash: of who is where, whatever the order of rows."""

    part: np.ndarray
    hash: str
    said: list[str] = field(default_factory=list)

    def rows(self, part: str) -> np.ndarray:
        """Indices of the images of a part."""
        return np.flatnonzero(self.part == part)


def group_patients(patient: Names, sha256: Names | None = None) -> np.ndarray:
    """(N,) name of each image's group: the first id among patients that are linked by an identical image."""
    over = {p: p for p in map(str, patient)}

    def root(p: str) -> str:
        while over[p] != p:
            over[p] = p = over[over[p]]
        return p

    first: dict[str, str] = {}
    for person, pixels in zip(map(str, patient), map(str, sha256) if sha256 is not None else (), strict=False):
        a, b = root(person), root(first.setdefault(pixels, person))
        over[max(a, b)] = min(a, b)
    return np.array([root(str(p)) for p in patient], dtype=object)


def assign_strata(group: np.ndarray, y: np.ndarray) -> dict[str, str]:
    """For each group the label to balance it by: the rarest that it has, and whether it has others too.

    y: (N, C) in {0, 1}, NaN = unknown; a group without any positive is of the stratum "none"."""
    positive = np.nan_to_num(y) > 0.5
    have: dict[str, set[int]] = {str(g): set() for g in group}
    empty: set[str] = set()
    for g, row in zip(group, positive, strict=True):
        have[str(g)].update(np.flatnonzero(row).tolist())
        if not row.any():
            empty.add(str(g))
    count = Counter(c for columns in have.values() for c in columns)
    named = {}
    for g, columns in have.items():
        rarest = min(columns, key=lambda c: (count[c], c)) if columns else None
        named[g] = "none" if rarest is None else f"{rarest}{'+' if len(columns) + (g in empty) > 1 else ''}"
    return named


def shuffle_by_hash(names: Names, seed: int, purpose: str) -> list[str]:
    """The names in a random order that depends on the seed and the names alone."""
    return sorted(names, key=lambda g: hashlib.sha256(f"{purpose}:{seed}:{g}".encode()).digest())


def assign_parts(group: np.ndarray, y: np.ndarray, shares: Mapping[str, float], seed: int, purpose: str = "split") -> dict[str, str]:
    """A part for every group: within each stratum, in random order, the part that lacks most images takes the next group.

    The part is chosen before the group's size is looked at; otherwise large groups would all go to the largest part."""
    size = Counter(str(g) for g in group)
    kinds: dict[str, list[str]] = defaultdict(list)
    for g, kind in assign_strata(group, y).items():
        kinds[kind].append(g)
    part: dict[str, str] = {}
    over_all = dict.fromkeys(shares, 0.0)  # what each part lacks over all strata: it settles ties in small ones
    for kind in sorted(kinds):
        lack = dict.fromkeys(shares, 0.0)
        for g in shuffle_by_hash(kinds[kind], seed, purpose):
            part[g] = max(shares, key=lambda p: (round(lack[p], 9), round(over_all[p], 9), shares[p]))
            for p, share in shares.items():
                gain = share * size[g] - (size[g] if p == part[g] else 0)
                lack[p] += gain
                over_all[p] += gain
    return part


def split_by_group(group: np.ndarray, y: np.ndarray, rule: SplitRule) -> np.ndarray:
    """(N,) parts of a seeded split by group, balanced by label."""
    part = assign_parts(group, y, {"train": 1 - rule.val - rule.test, "val": rule.val, "test": rule.test}, rule.seed)
    return np.array([part[str(g)] for g in group], dtype=object)


def read_official_parts(
    column: Names, patient: np.ndarray, pixels: np.ndarray | None, y: np.ndarray, rule: SplitRule
) -> tuple[np.ndarray, list[str]]:
    """(N,) parts as the source has them; a missing validation part is carved from the train patients.

    Identical images inside the train part stay together; those that the source put into two parts are the leakage gate's business."""
    wrong = sorted({str(v) for v in column if str(v).strip() and str(v).strip().lower() not in PART_NAMES})
    if wrong:
        raise InputError(f"split column {rule.source!r} holds {wrong[:5]}; expected train, val and test (empty: left out)")
    part = np.array([PART_NAMES.get(str(v).strip().lower(), "") for v in column], dtype=object)
    for needed in ("train", "test"):
        if not (part == needed).any():
            raise InputError(f"split column {rule.source!r} names no {needed} image; give --split-column none for an own split by patient")
    if not rule.patients_by_split:
        _refuse_patients_in_two(part, patient, rule)
    said = [f"{int((part == '').sum())} images without a part in {rule.source!r} are left out"] if (part == "").any() else []
    if not (part == "val").any():
        rows = np.flatnonzero(part == "train")
        who = group_patients(patient[rows], None if pixels is None else pixels[rows])
        carved = assign_parts(who, y[rows], {"train": 1 - rule.val, "val": rule.val}, rule.seed, "carve")
        part[rows] = [carved[str(g)] for g in who]
        said.append(f"no validation part in {rule.source!r}: {rule.val:.0%} of the train patients validate (seed {rule.seed})")
    return part, said


def _refuse_patients_in_two(part: np.ndarray, patient: np.ndarray, rule: SplitRule) -> None:
    where: dict[str, set[str]] = defaultdict(set)
    for p, name in zip(part, patient, strict=True):
        if p:
            where[str(name)].add(str(p))
    both = sorted(name for name, parts in where.items() if len(parts) > 1)
    if both:
        images = int(np.isin(patient.astype(str), both).sum())
        raise InputError(
            f"{len(both)} patients ({images} images) stand in two parts of {rule.source!r}, e.g. {', '.join(both[:3])}; "
            "`--split-column none` makes an own split by patient; `--patients-by-split` says that equal ids in two parts are two people"
        )


def make_split(rule: SplitRule, key: Names, patient: Names, sha256: Names | None, y: np.ndarray, column: Names | None = None) -> Split:
    """The split of `rule`: a pure function of the rule, the patients, the labels and identical images; not of the order of rows.

    Images without any known label are left out.  Raises InputError for a part or a class that cannot be had."""
    known = np.isfinite(y).any(axis=1)
    part = np.full(len(y), "", dtype=object)
    rows = np.flatnonzero(known)
    who = np.asarray(patient, dtype=object)[rows]
    pixels = None if sha256 is None else np.asarray(sha256, dtype=object)[rows]
    group = group_patients(who, pixels)
    said = []
    if rule.source is None:
        part[rows] = split_by_group(group, y[rows], rule)
        united = len(set(map(str, who))) - len(set(group))
        said += [f"{united} patients joined to others that share an image or a copy of it"] if united else []
    else:
        assert column is not None
        part[rows], said = read_official_parts(np.asarray(column, dtype=object)[rows], who, pixels, y[rows], rule)
    split = Split(part, hash_parts(key, part), said)
    for name in PARTS:
        if not len(split.rows(name)):
            raise InputError(f"the {name} part is empty: {len(set(group))} patients are too few for this split; change --val and --test")
    return split


def hash_parts(key: Names, part: np.ndarray) -> str:
    """16 hex digits of who is in which part, whatever the order of rows."""
    lines = sorted(f"{k}\t{p}\n" for k, p in zip(key, part, strict=True) if p)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
