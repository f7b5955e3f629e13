"""A task brought to life: its store opened, its target read, its patients split.

Shapes: N images of the store, C columns of the target.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from encoders.runtime.errors import InputError, unknown
from transfer import labels
from transfer.groups import is_age
from transfer.split import NAMES, PARTS, Split, make
from transfer.task import Rule, Task, located

MOST_GROUPS = 12  # values of a column; with more it is a measurement or an id


@dataclass
class Loaded:
    """y: (N, C) in {0, 1}, NaN = unknown.  key, patient, sha256: (N,)."""

    task: Task
    store: Any
    y: np.ndarray
    key: np.ndarray
    patient: np.ndarray
    sha256: np.ndarray
    split: Split
    said: list[str] = field(default_factory=list)

    @property
    def labels_hash(self) -> str:
        """16 hex digits of the target of every labeled image, whatever the order of rows."""
        known = np.flatnonzero(np.isfinite(self.y).any(axis=1))
        lines = sorted(str(self.key[i]).encode() + b"\t" + np.nan_to_num(self.y[i], nan=-1).astype("<f4").tobytes() for i in known)
        return hashlib.sha256(" ".join(self.task.classes).encode() + b"\n".join(lines)).hexdigest()[:16]

    def counts(self, of: Split | None = None) -> dict[str, dict[str, int]]:
        """Images and patients of each part."""
        rows = {part: (of or self.split).rows(part) for part in PARTS}
        return {part: {"images": len(r), "patients": len(set(map(str, self.patient[r])))} for part, r in rows.items()}

    @property
    def groups(self) -> dict[str, np.ndarray]:
        """(N,) a column of /meta by which test images may be told apart: text of few values, or an age. A record keeps them."""
        names = [n for n in self.store.columns() if all(n in part.groups.get("meta", ()) for part in self.store.parts)]
        return {name: column for name in names if is_group(name, column := np.asarray(self.store.column(name)))}


def is_group(name: str, values: np.ndarray) -> bool:
    """Whether a column divides images into a few groups: by an age, or by at most twelve values."""
    if is_age(name) and values.dtype.kind in "fiu":
        return bool(np.isfinite(values.astype(float)).any())
    known = np.unique(values[~np.isnan(values)] if values.dtype.kind == "f" else values.astype(str))
    return 1 <= len([v for v in known if str(v)]) <= MOST_GROUPS


def opened(task: Task) -> Any:
    """The task's store. Raises InputError when it is gone, torn, or foreign."""
    from encoders.store import Store

    try:
        return Store.open([located(p) for p in task.store])
    except InputError as wrong:
        raise InputError(f"task {task.name!r}: {wrong}") from wrong


def read_targets(store: Any, columns: Sequence[str], csv: str | None, kind: str | None, positive: str | None) -> labels.Targets:
    """The target that the columns of the store, or of the CSV file, make."""
    said: list[str] = []
    if csv is not None:
        found, said = labels.from_csv(located(csv), store, columns)
    else:
        found = labels.from_store(store, columns)
    result = labels.targets(found, kind, positive)
    result.said = said + result.said
    return result


def split_column(store: Any, rule: Rule) -> np.ndarray | None:
    """The column with the official split, if the rule wants one."""
    if rule.column is None:
        return None
    if not store.has(rule.column):
        raise unknown("split column", rule.column, store.columns(), "(--split-column none: an own split by patient)")
    return np.asarray(store.column(rule.column))


def default_column(store: Any) -> str | None:
    """`split` when the store has one that names a train and a test part."""
    if not store.has("split"):
        return None
    named = {NAMES.get(str(v).strip().lower()) for v in np.unique(store.column("split").astype(str))}
    return "split" if {"train", "test"} <= named else None


def load(task: Task) -> Loaded:
    """The task with its store, target and split. Raises InputError when the labels changed their classes since it was added."""
    store = opened(task)
    found = read_targets(store, task.labels, task.csv, task.kind, task.positive)
    if found.classes != task.classes:
        raise InputError(
            f"task {task.name!r} was added with the classes {', '.join(task.classes)}; its labels now hold {', '.join(found.classes)}: "
            "add it again with --replace"
        )
    key, patient, sha256 = (np.asarray(store.column(name)) for name in ("key", "patient", "sha256"))
    made = make(task.split, key, patient, sha256, found.y, split_column(store, task.split))
    return Loaded(task, store, found.y, key, patient, sha256, made, found.said + made.said)
