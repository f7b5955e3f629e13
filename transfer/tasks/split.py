"""Splits of a task's images into train, val and test by patient.

Patients that share an image, or a near-duplicate confirmed on its pixels, form one group and stay in one part.

Shapes: N images, C target columns.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.unknown_values import count_unknown, describe_unknown, find_unknown
from transfer.tasks.options import PARTS, Part
from transfer.tasks.split_words import describe_split_values, find_parts, unclear_split_error
from transfer.tasks.task import SplitRule

Names = Sequence[object] | Array


@dataclass(frozen=True)
class Split:
    """part: (N,) "train", "val", "test" or "" (excluded).  hash: of the images of each part, independent of the order of rows.

    messages: sentences for the user about how the split was made."""

    part: Array
    hash: str
    messages: list[str] = field(default_factory=list)

    def rows(self, part: Part) -> Array:
        """Indices of the images of a part."""
        return np.flatnonzero(self.part == part)


def group_patients(patient: Names, image_id: Names | None = None) -> Array:
    """(N,) name of each image's group: the first of the patient ids that are linked by equal `image_id`s."""
    parent = {p: p for p in map(str, patient)}

    def root(p: str) -> str:
        while parent[p] != p:
            parent[p] = p = parent[parent[p]]
        return p

    first: dict[str, str] = {}
    for person, image in zip(map(str, patient), map(str, image_id) if image_id is not None else (), strict=False):
        a, b = root(person), root(first.setdefault(image, person))
        parent[max(a, b)] = min(a, b)
    return np.array([root(str(p)) for p in patient], dtype=object)


def assign_strata(group: Array, y: Array) -> dict[str, str]:
    """Group -> stratum to balance it by: its rarest positive label, with a `+` if it has other labels too.

    y: (N, C) in {0, 1}, NaN = unknown; a group without a positive label has the stratum "none"."""
    positive = np.nan_to_num(y) > 0.5
    code: dict[str, int] = {}
    index = np.array([code.setdefault(str(g), len(code)) for g in group], dtype=np.int64)  # (N,) the group of each image
    have, empty = np.zeros((len(code), y.shape[1]), dtype=bool), np.zeros(len(code), dtype=bool)  # (groups, C), (groups,)
    rows, columns = np.nonzero(positive)
    have[index[rows], columns] = True
    empty[index[~positive.any(axis=1)]] = True
    by_rarity = np.argsort(have.sum(axis=0), kind="stable")  # (C,) of two equally rare labels, the first one
    rarest = by_rarity[have[:, by_rarity].argmax(axis=1)]
    n = have.sum(axis=1)
    return {
        g: f"{label}{'+' if more else ''}" if known else "none"
        for g, label, more, known in zip(code, rarest.tolist(), (n + empty > 1).tolist(), (n > 0).tolist(), strict=True)
    }


def shuffle_by_hash(names: Sequence[str], seed: int, purpose: str) -> list[str]:
    """The names in a random order that depends only on seed, purpose and names."""
    return sorted(names, key=lambda g: hashlib.sha256(f"{purpose}:{seed}:{g}".encode()).digest())


def assign_parts(group: Array, y: Array, shares: Mapping[str, float], seed: int, purpose: str = "split") -> dict[str, str]:
    """Group -> part. Within each stratum, groups come in random order, and each goes to the part that lacks most images.

    The part is chosen without regard to the size of the group; otherwise all large groups would go to the largest part."""
    size = Counter(str(g) for g in group)
    kinds: dict[str, list[str]] = defaultdict(list)
    for g, kind in assign_strata(group, y).items():
        kinds[kind].append(g)
    part: dict[str, str] = {}
    over_all = dict.fromkeys(shares, 0.0)  # images that each part lacks over all strata; breaks ties in small strata
    for kind in sorted(kinds):
        lack = dict.fromkeys(shares, 0.0)
        for g in shuffle_by_hash(kinds[kind], seed, purpose):
            part[g] = max(shares, key=lambda p: (round(lack[p], 9), round(over_all[p], 9), shares[p]))
            for p, share in shares.items():
                gain = share * size[g] - (size[g] if p == part[g] else 0)
                lack[p] += gain
                over_all[p] += gain
    return part


def split_by_group(group: Array, y: Array, rule: SplitRule) -> Array:
    """(N,) parts of a random split by group, balanced by label."""
    part = assign_parts(group, y, {"train": 1 - rule.val - rule.test, "val": rule.val, "test": rule.test}, rule.seed)
    return np.array([part[str(g)] for g in group], dtype=object)


def read_official_parts(column: Names, patient: Array, image_id: Array | None, y: Array, rule: SplitRule) -> tuple[Array, list[str]]:
    """(N,) parts of the official split, and messages for the user; a missing validation part is drawn from the train patients.

    Train patients with identical images stay in one part. Images that the source has in two parts are left to the leakage check."""
    unknown = find_unknown(column, names=True)
    counts = Counter(str(v) for v in np.asarray(column, dtype=object)[~unknown])
    part_of = find_parts(counts)
    if part_of is None:
        raise unclear_split_error(str(rule.source), counts)
    part = np.array([part_of.get(str(v), "") for v in column], dtype=object)
    for needed in ("train", "test"):
        if not (part == needed).any():
            named = f"--split-value {needed}=VALUE says which value is the {needed} part; " if rule.column else ""
            raise InputError(
                f"split column {rule.source!r} has no {needed} image: it holds {describe_split_values(counts)}. {named}"
                "--split-column none makes a random split by patient"
            )
    if not rule.patients_by_split:
        _refuse_patients_in_two(part, patient, rule)
    texts = describe_unknown(count_unknown(column, unknown))
    messages = [f"{int(unknown.sum())} images without a part in {rule.source!r} are excluded ({texts})"] if unknown.any() else []
    if not (part == "val").any():
        rows = np.flatnonzero(part == "train")
        group = group_patients(patient[rows], None if image_id is None else image_id[rows])
        drawn = assign_parts(group, y[rows], {"train": 1 - rule.val, "val": rule.val}, rule.seed, "carve")
        part[rows] = [drawn[str(g)] for g in group]
        messages.append(
            f"{rule.source!r} has no validation part: {rule.val:.0%} of the train patients are used for validation (seed {rule.seed})"
        )
    return part, messages


def _refuse_patients_in_two(part: Array, patient: Array, rule: SplitRule) -> None:
    parts_of: dict[str, set[str]] = defaultdict(set)
    for p, name in zip(part, patient, strict=True):
        if p:
            parts_of[str(name)].add(str(p))
    both = sorted(name for name, parts in parts_of.items() if len(parts) > 1)
    if both:
        images = int(np.isin(patient.astype(str), both).sum())
        raise InputError(
            f"{len(both)} patients ({images} images) are in two parts of {rule.source!r}, e.g. {', '.join(both[:3])}; "
            "`--split-column none` makes a random split by patient; `--patients-by-split` treats equal ids in two parts as two patients"
        )


def make_split(rule: SplitRule, key: Names, patient: Names, image_id: Names | None, y: Array, column: Names | None = None) -> Split:
    """The split of `rule`. It depends on rule, keys, patients, labels and equal `image_id`s, not on the order of rows.

    column: (N,) the official parts, if the rule has them.  Images without any known label are excluded.
    Raises InputError for a part that would be empty, and for a wrong official split."""
    known = np.isfinite(y).any(axis=1)
    part = np.full(len(y), "", dtype=object)
    rows = np.flatnonzero(known)
    patients = np.asarray(patient, dtype=object)[rows]
    images = None if image_id is None else np.asarray(image_id, dtype=object)[rows]
    group = group_patients(patients, images)
    messages = []
    if rule.source is None:
        part[rows] = split_by_group(group, y[rows], rule)
        merged = len(set(map(str, patients))) - len(set(group))
        messages += [f"{merged} patients grouped with others because they share an image or a near-duplicate"] if merged else []
    else:
        assert column is not None
        part[rows], messages = read_official_parts(np.asarray(column, dtype=object)[rows], patients, images, y[rows], rule)
    split = Split(part, hash_parts(key, part), messages)
    for name in PARTS:
        if not len(split.rows(name)):
            raise InputError(f"the {name} part is empty: {len(set(group))} patients are too few for this split; change --val and --test")
    return split


def hash_parts(key: Names, part: Array) -> str:
    """16 hex digits of the images of each part, independent of the order of rows."""
    lines = sorted(f"{k}\t{p}\n" for k, p in zip(key, part, strict=True) if p)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
