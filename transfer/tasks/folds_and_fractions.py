"""The splits that a task is benchmarked on: its own split, nested label fractions of it, or folds of cross-validation.

A label fraction is drawn by patient within each label, from the train and the validation part alike, so that little labeled data also means
little data for selection. The smaller fractions of a draw are subsets of the larger ones. A fraction may be given as a number of train
patients; the validation part then keeps the same share of its patients. The test part always stays whole.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.config import json_digest
from encoders.runtime.errors import InputError
from transfer.tasks.load import LoadedTask
from transfer.tasks.split import Split, assign_parts, assign_strata, group_patients, hash_parts, shuffle_by_hash


@dataclass(frozen=True)
class Portion:
    """A split to benchmark on, and what identifies it in a record."""

    split: Split
    partition: str
    fold: int = 0
    folds: int = 1
    fraction: float = 1.0
    draw: int = 0
    patients: int | None = None  # the requested number of train patients

    @property
    def identity(self) -> dict[str, Any]:
        """The fields of a record's identity that this portion determines."""
        fields = {"fold": self.fold, "folds": self.folds, "fraction": self.fraction, "draw": self.draw, "patients": self.patients}
        return {"split": self.split.hash, "partition": self.partition, **fields}


def build_portions(
    loaded: LoadedTask,
    fractions: Sequence[float] = (1.0,),
    draws: int = 1,
    folds: int = 1,
    patients: Sequence[int] = (),
    only_draw: int | None = None,
) -> list[Portion]:
    """Every fold at every label fraction. Raises InputError for a fraction outside (0, 1], too many patients, or impossible folds.

    patients: label fractions as numbers of train patients.  only_draw: the one draw of a fraction below 1, instead of the first `draws`."""
    invalid = [f for f in fractions if not 0 < f <= 1]
    if invalid or not (fractions or patients):
        raise InputError(f"--fractions holds {invalid or 'nothing'}; a label fraction is above 0 and at most 1, e.g. 0.01,0.1,1 or 20p,1")
    if draws < 1:
        raise InputError(f"--draws is {draws}; expected at least 1")
    chosen = range(draws) if only_draw is None else [only_draw]
    splits = [loaded.split] if folds == 1 else kfold(loaded, folds)
    partition = splits[0].hash if folds == 1 else json_digest([s.hash for s in splits])
    portions = []
    for fold, split in enumerate(splits):
        for fraction in sorted(set(fractions)):
            for draw in chosen if fraction < 1 else [0]:  # there is only one way to draw all labels
                part = split if fraction == 1 else take_fraction(loaded, split, fraction, draw)
                portions.append(Portion(part, partition, fold, folds, fraction, draw))
        for n in sorted(set(patients)):
            for draw in chosen:
                portions.append(take_patients(loaded, split, n, Portion(split, partition, fold, folds, draw=draw, patients=n)))
    return portions


def take_patients(loaded: LoadedTask, split: Split, n: int, portion: Portion) -> Portion:
    """`portion` with exactly `n` train patients of `split`, and the same share of the validation patients.

    Raises InputError when the train part has fewer patients."""
    part, share = split.part.copy(), 1.0
    for name in ("train", "val"):
        rows = split.rows(name)
        group = np.asarray(group_patients(loaded.patient[rows], loaded.image_group[rows]))
        order = rank_patients(group, loaded.y[rows], portion.draw, name)
        if name == "train":
            if not 1 <= n <= len(order):
                raise InputError(f"--fractions is {n}p, but the train part of {loaded.task.name!r} has {len(order)} patients")
            share = n / len(order)
        kept = set(order[: n if name == "train" else max(1, round(share * len(order)))])
        part[rows[[str(g) not in kept for g in group]]] = ""
    return replace(portion, split=Split(part, split.hash, split.messages), fraction=share)


def rank_patients(group: Array, y: Array, draw: int, name: str) -> list[str]:
    """The patients of a part in an order whose first n are nearly balanced by label for every n: one per stratum first, then by quantile.

    The first n are a subset of the first n + 1. A share of each stratum, rounded for every n, would not guarantee that."""
    strata: dict[str, list[str]] = defaultdict(list)
    for g, stratum in assign_strata(group, y).items():
        strata[stratum].append(g)
    rank_of: dict[str, tuple[bool, float, str]] = {}
    for stratum, members in strata.items():
        for rank, g in enumerate(shuffle_by_hash(members, draw, f"patients:{name}:{stratum}")):
            rank_of[g] = (rank > 0, (rank + 0.5) / len(members), g)
    return sorted(rank_of, key=rank_of.__getitem__)


def take_fraction(loaded: LoadedTask, split: Split, fraction: float, draw: int) -> Split:
    """`split` with a fraction of its train and validation patients, at least one from each stratum.

    It keeps the hash of the whole split, because its test part is the same."""
    part = split.part.copy()
    for name in ("train", "val"):
        rows = split.rows(name)
        group = np.asarray(group_patients(loaded.patient[rows], loaded.image_group[rows]))
        strata: dict[str, list[str]] = defaultdict(list)
        for g, stratum in assign_strata(group, loaded.y[rows]).items():
            strata[stratum].append(g)
        kept: set[str] = set()
        for stratum, members in strata.items():
            order = shuffle_by_hash(members, draw, f"fraction:{name}:{stratum}")
            kept.update(order[: max(1, round(fraction * len(order)))])
        part[rows[[str(g) not in kept for g in group]]] = ""
    return Split(part, split.hash, split.messages)


def kfold(loaded: LoadedTask, folds: int) -> list[Split]:
    """One split per fold: its test part is one of `folds` parts of all patients, its validation part is drawn from the rest.

    Raises InputError for a task with an official split, whose test part must not be trained on, and for too few patients."""
    rule = loaded.task.split
    if rule.source is not None:
        raise InputError(
            f"task {loaded.task.name!r} has an official split in {rule.source!r}; --folds needs a random split: --split-column none"
        )
    rows = np.flatnonzero(loaded.split.part != "")
    group = group_patients(loaded.patient[rows], loaded.image_group[rows])
    if not 2 <= folds <= len(set(group)) // 3:
        raise InputError(f"--folds is {folds}; from 2 to {len(set(group)) // 3} are possible with {len(set(group))} patients")
    tested = assign_parts(group, loaded.y[rows], {str(f): 1 / folds for f in range(folds)}, rule.seed, "folds")
    share = rule.val / (1 - rule.test)  # train and validation parts have the same proportion as in the single split
    splits = []
    for fold in range(folds):
        rest = np.array([tested[str(g)] != str(fold) for g in group])
        drawn = assign_parts(group[rest], loaded.y[rows][rest], {"train": 1 - share, "val": share}, rule.seed, f"fold{fold}")
        part = np.full(len(loaded.key), "", dtype=object)
        part[rows] = [drawn.get(str(g), "test") for g in group]
        splits.append(Split(part, hash_parts(loaded.key, part)))
    return splits
