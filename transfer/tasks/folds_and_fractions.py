"""The splits that a task is benched on: the whole one, nested label fractions, or folds with a seal each.

A fraction is drawn by patient within each label, train and validation alike, so that little labeled data also means little to select on;
every smaller fraction of a draw is inside the larger ones. It may be named as a number of train patients; the validation part then keeps
the same share of its own. The test part never shrinks.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from encoders.runtime.config import json_digest
from encoders.runtime.errors import InputError
from transfer.tasks.load import LoadedTask
from transfer.tasks.split import Split, assign_parts, assign_strata, group_patients, hash_parts, shuffle_by_hash


@dataclass(frozen=True)
class Portion:
    """A split to bench on, and what of it goes into the identity of a record."""

    split: Split
    partition: str
    fold: int = 0
    folds: int = 1
    fraction: float = 1.0
    draw: int = 0
    patients: int | None = None  # the number of train patients that was asked for

    @property
    def identity(self) -> dict[str, Any]:
        place = {"fold": self.fold, "folds": self.folds, "fraction": self.fraction, "draw": self.draw, "patients": self.patients}
        return {"split": self.split.hash, "partition": self.partition, **place}


def build_portions(
    loaded: LoadedTask, fractions: Sequence[float] = (1.0,), draws: int = 1, folds: int = 1, patients: Sequence[int] = ()
) -> list[Portion]:
    """All portions. Raises InputError for a fraction outside (0, 1], too many patients, or folds that a task cannot have."""
    wrong = [f for f in fractions if not 0 < f <= 1]
    if wrong or not (fractions or patients):
        raise InputError(f"--fractions holds {wrong or 'nothing'}; a label fraction is above 0 and at most 1, e.g. 0.01,0.1,1 or 20p,1")
    if draws < 1:
        raise InputError(f"--draws is {draws}; at least 1 is expected")
    splits = [loaded.split] if folds == 1 else kfold(loaded, folds)
    partition = splits[0].hash if folds == 1 else json_digest([s.hash for s in splits])
    found = []
    for fold, split in enumerate(splits):
        for fraction in sorted(set(fractions)):
            for draw in range(draws if fraction < 1 else 1):  # all labels can be drawn in one way only
                part = split if fraction == 1 else take_fraction(loaded, split, fraction, draw)
                found.append(Portion(part, partition, fold, folds, fraction, draw))
        for n in sorted(set(patients)):
            for draw in range(draws):
                found.append(take_patients(loaded, split, n, Portion(split, partition, fold, folds, draw=draw, patients=n)))
    return found


def take_patients(loaded: LoadedTask, split: Split, n: int, wish: Portion) -> Portion:
    """The portion with exactly `n` train patients, and as large a share of the validation patients.

    Raises InputError when the train part does not have so many."""
    part, share = split.part.copy(), 1.0
    for name in ("train", "val"):
        rows = split.rows(name)
        group = np.asarray(group_patients(loaded.patient[rows], loaded.picture[rows]))
        order = rank_patients(group, loaded.y[rows], wish.draw, name)
        if name == "train":
            if not 1 <= n <= len(order):
                raise InputError(f"--fractions asks for {n} patients; the train part of {loaded.task.name!r} has {len(order)}")
            share = n / len(order)
        kept = set(order[: n if name == "train" else max(1, round(share * len(order)))])
        part[rows[[str(g) not in kept for g in group]]] = ""
    return replace(wish, split=Split(part, split.hash, split.said), fraction=share)


def rank_patients(group: np.ndarray, y: np.ndarray, draw: int, name: str) -> list[str]:
    """The patients of a part in an order whose every beginning is nearly balanced by label: one of each kind first, then by quantile.

    So smaller numbers of one draw are inside larger ones, which shares of each kind, rounded for every number anew, would not give."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for g, kind in assign_strata(group, y).items():
        kinds[kind].append(g)
    place: dict[str, tuple[bool, float, str]] = {}
    for kind, members in kinds.items():
        for rank, g in enumerate(shuffle_by_hash(members, draw, f"patients:{name}:{kind}")):
            place[g] = (rank > 0, (rank + 0.5) / len(members), g)
    return sorted(place, key=place.__getitem__)


def take_fraction(loaded: LoadedTask, split: Split, fraction: float, draw: int) -> Split:
    """`split` with a fraction of its train and of its validation patients; at least one of each kind that the part has.

    Its hash stays that of the whole split, because the test part is the same."""
    part = split.part.copy()
    for name in ("train", "val"):
        rows = split.rows(name)
        group = np.asarray(group_patients(loaded.patient[rows], loaded.picture[rows]))
        kinds: dict[str, list[str]] = defaultdict(list)
        for g, kind in assign_strata(group, loaded.y[rows]).items():
            kinds[kind].append(g)
        kept: set[str] = set()
        for kind, members in kinds.items():
            order = shuffle_by_hash(members, draw, f"fraction:{name}:{kind}")
            kept.update(order[: max(1, round(fraction * len(order)))])
        part[rows[[str(g) not in kept for g in group]]] = ""
    return Split(part, split.hash, split.said)


def kfold(loaded: LoadedTask, folds: int) -> list[Split]:
    """One split a fold: its test part is one of `folds` parts of all patients, its validation part is carved from the rest.

    Raises InputError for a task with an official split (its test part is not ours to train on), or with insufficient patients."""
    rule = loaded.task.split
    if rule.source is not None:
        raise InputError(
            f"task {loaded.task.name!r} has an official split in {rule.source!r}; folds need an own split: --split-column none"
        )
    rows = np.flatnonzero(loaded.split.part != "")
    group = group_patients(loaded.patient[rows], loaded.picture[rows])
    if not 2 <= folds <= len(set(group)) // 3:
        raise InputError(f"--folds is {folds}; from 2 to {len(set(group)) // 3} are possible with {len(set(group))} patients")
    tested = assign_parts(group, loaded.y[rows], {str(f): 1 / folds for f in range(folds)}, rule.seed, "folds")
    share = rule.val / (1 - rule.test)  # the validation part is as large, next to train, as in the single split
    found = []
    for fold in range(folds):
        rest = np.array([tested[str(g)] != str(fold) for g in group])
        carved = assign_parts(group[rest], loaded.y[rows][rest], {"train": 1 - share, "val": share}, rule.seed, f"fold{fold}")
        part = np.full(len(loaded.key), "", dtype=object)
        part[rows] = [carved.get(str(g), "test") for g in group]
        found.append(Split(part, hash_parts(loaded.key, part)))
    return found
