"""A task brought to life: its store opened, its target read, its patients split.

Shapes: N images of the store, C columns of the target.
"""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from encoders.runtime.errors import InputError, unknown_name_error
from encoders.similarity.near_duplicates import canonical_hashes
from transfer.tasks import labels
from transfer.tasks.group_columns import is_age_column
from transfer.tasks.split import PART_NAMES, PARTS, Split, make_split
from transfer.tasks.task import SplitRule, TargetSpec, Task, to_absolute_path
from transfer.tasks.uncertain_labels import apply_policy, smooth_targets

MAX_GROUPS = 12  # values of a column; with more it is a measurement or an id


@dataclass
class LoadedTask:
    """y: (N, C) in {0, 1}, NaN = unknown.  key, patient, sha256, and picture: (N,), the last equal for copies too."""

    task: Task
    store: Any
    y: np.ndarray
    key: np.ndarray
    patient: np.ndarray
    sha256: np.ndarray
    picture: np.ndarray
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
        return {name: column for name in names if is_group_column(name, column := np.asarray(self.store.column(name)))}


def is_group_column(name: str, values: np.ndarray) -> bool:
    """Whether a column divides images into a few groups: by an age, or by at most twelve values."""
    if is_age_column(name) and values.dtype.kind in "fiu":
        return bool(np.isfinite(values.astype(float)).any())
    known = np.unique(values[~np.isnan(values)] if values.dtype.kind == "f" else values.astype(str))
    return 1 <= len([v for v in known if str(v)]) <= MAX_GROUPS


def open_task_store(task: Task) -> Any:
    """The task's store. Raises InputError when it is gone, torn, or foreign."""
    from encoders.store.store import Store

    try:
        return Store.open([to_absolute_path(p) for p in task.store])
    except InputError as wrong:
        raise InputError(f"task {task.name!r}: {wrong}") from wrong


def read_label_columns(store: Any, task: TargetSpec) -> tuple[list[labels.LabelColumn], list[str]]:
    """The label columns of the store, or of the CSV file, as they are, and what is to be said about them."""
    names = [task.findings.column] if task.findings else task.labels
    found, said = (
        labels.read_csv_labels(to_absolute_path(task.csv), store, names, task.csv_on)
        if task.csv
        else (labels.read_store_labels(store, names), [])
    )
    if task.findings:
        found = labels.split_findings(found[0], task.labels, task.findings.separator)
    return found, said


def read_targets(store: Any, task: TargetSpec) -> labels.Targets:
    """The target that the columns make under the task's policy."""
    raw, said = read_label_columns(store, task)
    if task.policy.uncertain == "multiclass" and len(raw) != 1:
        raise InputError(f"uncertain labels as a class of their own make a task of one label, not of {len(raw)}; give one --label")
    found = [labels.keep_classes(c, task.keep) if task.keep else apply_policy(c, task.policy) for c in raw]
    result = labels.build_targets(found, task.kind, task.positive)
    result.soft = smooth_targets(raw, task.policy, np.asarray(store.column("key")))
    result.said = said + result.said
    return result


def read_split_column(store: Any, rule: SplitRule) -> np.ndarray | None:
    """(N,) the official part of every image in the words of `NAMES`, if the rule wants one; "" = none."""
    if rule.source is None:
        return None
    if rule.lists:
        return match_official_lists(store, rule)
    assert rule.column is not None
    if not store.has(rule.column):
        raise unknown_name_error("split column", rule.column, store.columns(), "(--split-column none: an own split by patient)")
    values = np.asarray(store.column(rule.column)).astype(object)
    if rule.pattern:
        found = [re.search(rule.pattern, str(v)) for v in values]
        values = np.array([match.group(1) if match else "" for match in found], dtype=object)
    return np.array([rule.names.get(str(v), v) for v in values], dtype=object)


def match_official_lists(store: Any, rule: SplitRule) -> np.ndarray:
    """(N,) the part whose list names the image, by its key or the key's last part; "" = none.

    Raises InputError for a list that cannot be read or fits no image, and for an image in two lists."""
    key = [str(k) for k in store.column("key")]
    part = np.full(len(key), "", dtype=object)
    for name, path in rule.lists.items():
        names = read_official_list(path)
        wanted = set(names)
        here = np.array([k in wanted or labels.path_basename(k) in wanted for k in key])
        if not here.any():
            raise InputError(f"the list {path} ({name}) names no image of the store: it has {names[0]!r}, the store {key[0]!r}")
        both = here & (part != "")
        if both.any():
            raise InputError(f"{int(both.sum())} images stand in the {name} list and in another, e.g. {key[int(np.argmax(both))]!r}")
        part[here] = name
    return part


def read_official_list(path: str) -> list[str]:
    """The lines of an official list. Raises InputError when it cannot be read or is empty."""
    try:
        with open(to_absolute_path(path), encoding="utf-8-sig") as file:
            names = [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as wrong:
        raise InputError(f"cannot read the official list {path}: {getattr(wrong, 'strerror', None) or wrong}") from wrong
    if not names:
        raise InputError(f"the official list {path} is empty")
    return names


def find_split_column(store: Any) -> str | None:
    """`split` when the store has one that names a train and a test part."""
    if not store.has("split"):
        return None
    named = {PART_NAMES.get(str(v).strip().lower()) for v in np.unique(store.column("split").astype(str))}
    return "split" if {"train", "test"} <= named else None


def load_task(task: Task) -> LoadedTask:
    """The task with its store, target and split. Raises InputError when the labels changed their classes since it was added."""
    store = open_task_store(task)
    found = read_targets(store, task)
    if found.classes != task.classes:
        raise InputError(
            f"task {task.name!r} was added with the classes {', '.join(task.classes)}; its labels now hold {', '.join(found.classes)}: "
            "add it again with --replace"
        )
    key, patient, sha256 = (np.asarray(store.column(name)) for name in ("key", "patient", "sha256"))
    y = found.y if found.soft is None else np.where(np.isnan(found.soft), found.y, found.soft)  # (N, C) as train rows see it
    picture = canonical_hashes(store, sha256)
    made = make_split(task.split, key, patient, picture, y, read_split_column(store, task.split))
    y = np.where((made.part == "train")[:, None], y, found.y)
    return LoadedTask(task, store, y, key, patient, sha256, picture, made, found.said + made.said)
