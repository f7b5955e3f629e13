"""Loads a registered task: opens its store, builds its targets, and splits its patients.

Shapes: N images of the store, C columns of the targets.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from encoders.ingest.tables.combine import AGREEMENT_SUFFIX
from encoders.ingest.tables.list_columns import ListColumn
from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.unknown_values import describe_unknown, is_unknown
from encoders.similarity.near_duplicates import canonical_hashes
from transfer.tasks.csv_labels import as_labels, read_csv_labels
from transfer.tasks.dropped_labels import describe_left_out_classes, describe_unknown_labels
from transfer.tasks.finding_lists import check_classes, check_listed, split_findings
from transfer.tasks.group_columns import identifies_people, is_age_column
from transfer.tasks.labels import LabelColumn, Targets, build_targets, keep_classes, merge_spellings, read_store_labels
from transfer.tasks.official_parts import read_split_column
from transfer.tasks.options import PARTS
from transfer.tasks.people import describe_people
from transfer.tasks.split import Split, make_split
from transfer.tasks.task import TargetSpec, Task, to_absolute_path
from transfer.tasks.uncertain_labels import apply_policy, smooth_targets

if TYPE_CHECKING:
    from encoders.store.store import Store

MAX_GROUPS = 12  # distinct values of a group column; one with more is a measurement or an id


@dataclass
class LoadedTask:
    """A task with its data. y: (N, C) in {0, 1}, NaN = unknown.  key, patient, sha256, image_group: (N,).

    image_group: equal for identical images and for confirmed near-duplicates of them.
    messages: sentences for the user about how labels and split were read.
    agreement: label -> (N,) share of readers or rows that gave its value, NaN = unknown; of labels that were combined by majority."""

    task: Task
    store: "Store"
    y: Array
    key: Array
    patient: Array
    sha256: Array
    image_group: Array
    split: Split
    messages: list[str] = field(default_factory=list)
    agreement: dict[str, Array] = field(default_factory=dict, kw_only=True)

    @property
    def labels_hash(self) -> str:
        """16 hex digits of the targets of all labeled images, independent of the order of rows."""
        known = np.flatnonzero(np.isfinite(self.y).any(axis=1))
        lines = sorted(str(self.key[i]).encode() + b"\t" + np.nan_to_num(self.y[i], nan=-1).astype("<f4").tobytes() for i in known)
        return hashlib.sha256(" ".join(self.task.classes).encode() + b"\n".join(lines)).hexdigest()[:16]

    def counts(self, split: Split | None = None) -> dict[str, dict[str, int]]:
        """Number of images and patients in each part of `split`; None: of the task's own split."""
        rows = {part: (split or self.split).rows(part) for part in PARTS}
        return {part: {"images": len(r), "patients": len(set(map(str, self.patient[r])))} for part, r in rows.items()}

    @property
    def groups(self) -> dict[str, Array]:
        """The columns that divide the images into groups, (N,) each; records keep them.

        They are the columns of /meta with few values, or of ages, and the agreement of the readers of a label."""
        names = [n for n in self.store.columns() if all(n in part.groups.get("meta", ()) for part in self.store.parts)]
        columns = {name: np.asarray(self.store.column(name)) for name in names}
        columns |= {label + AGREEMENT_SUFFIX: shares for label, shares in self.agreement.items()}
        return {name: column for name, column in columns.items() if is_group_column(name, column)}

    @property
    def components(self) -> tuple["LoadedTask", ...]:
        """The tasks whose features are computed and cached separately: this one; a joined task has several."""
        return (self,)

    def record_identity(self, portion_identity: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a record's identity that the task and a portion of it determine."""
        return {"store": self.store.fingerprint, **portion_identity}


def is_group_column(name: str, values: Array) -> bool:
    """Whether a column divides images into a few groups: an age, or at most `MAX_GROUPS` distinct values that are no people or dates."""
    if identifies_people(name, values):
        return False
    if is_age_column(name) and values.dtype.kind in "fiu":
        return bool(np.isfinite(values.astype(float)).any())
    known = np.unique(values[~np.isnan(values)] if values.dtype.kind == "f" else values.astype(str))
    return 1 <= len([v for v in known if not is_unknown(str(v), beside_words=True)]) <= MAX_GROUPS


def open_task_store(task: Task) -> "Store":
    """The task's store. Raises InputError when it is missing, damaged, or of another format."""
    from encoders.store.store import Store

    try:
        return Store.open([to_absolute_path(p) for p in task.store])
    except InputError as error:
        raise InputError(f"task {task.name!r}: {error}") from error


def read_label_columns(store: "Store", task: TargetSpec) -> tuple[list[LabelColumn], list[str]]:
    """The label columns of the store or of the CSV file, before any policy, and messages for the user about them."""
    findings, messages = task.findings, list[str]()
    if task.csv:
        lists = ListColumn(findings.column, tuple(task.labels), findings.separator) if findings else None
        how = (task.csv_on, task.csv_join, task.combine, task.reader, lists, task.csv_derive, task.csv_only)
        columns, messages = read_csv_labels(as_labels(task.csv, task.csv_columns), store, task.labels, *how)
    elif findings:
        columns, messages = split_findings(read_store_labels(store, [findings.column])[0], task.labels, findings.separator)
    else:
        check_listed(store, task.labels)
        columns = read_store_labels(store, task.labels)
    merged = [merge_spellings(column) for column in columns]
    columns = [column for column, _ in merged]
    messages += [line for _, lines in merged for line in lines]
    messages += describe_unknown_labels(columns if findings is None else [replace(columns[0], name=findings.column)])
    if findings is None:
        messages += describe_left_out_classes(columns[0], task.keep) if task.keep else []
    elif task.keep:
        raise InputError("--keep names classes of a text label; findings of lists are labels of 0 and 1, so remove it")
    return columns, messages


def read_targets(store: "Store", task: TargetSpec) -> Targets:
    """The targets of all images: the label columns under the task's policy."""
    raw, messages = read_label_columns(store, task)
    if task.policy.uncertain == "multiclass" and len(raw) != 1:
        raise InputError(f"--uncertain multiclass needs a task with one label, not {len(raw)}; give one --label")
    for column in raw:
        check_classes(keep_classes(column, task.keep) if task.keep and {*task.keep} <= {*(column.classes or ())} else column)
    columns = [keep_classes(c, task.keep) if task.keep else apply_policy(c, task.policy) for c in raw]
    targets = build_targets(columns, task.kind, task.positive)
    targets.soft_targets = smooth_targets(raw, task.policy, np.asarray(store.column("key")))
    targets.messages = messages + targets.messages
    targets.agreement = {column.name: column.agreement for column in raw if column.agreement is not None}
    return targets


def load_task(task: Task) -> LoadedTask:
    """The task with its store, targets and split. Raises InputError when the labels have other classes than when it was added."""
    store = open_task_store(task)
    targets = read_targets(store, task)
    if targets.classes != task.classes:
        raise InputError(
            f"task {task.name!r} was added with the classes {', '.join(task.classes)}, but its labels now have the classes "
            f"{', '.join(targets.classes)}; add it again with --replace"
        )
    key, sha256, patient = np.asarray(store.column("key")), np.asarray(store.column("sha256")), store.people(task.same_people)
    soft = targets.soft_targets
    y = targets.y if soft is None else np.where(np.isnan(soft), targets.y, soft)  # (N, C), for train rows
    image_group = canonical_hashes(store, sha256)
    read_as: list[str] = []
    parts = read_split_column(store, task.split, read_as)
    split = make_split(task.split, key, patient, image_group, y, parts)
    split = replace(split, messages=[*read_as, *split.messages])
    y = np.where((split.part == "train")[:, None], y, targets.y)
    messages = [*targets.messages, *describe_people(store, task.same_people), *split.messages]
    if task.split.column and {""} < {*(texts := store.unknown_texts(task.split.column)), ""}:
        messages.append(f"split column {task.split.column!r} at ingest: {describe_unknown(texts)}")
    messages += describe_agreement(targets.agreement, split)
    return LoadedTask(task, store, y, key, patient, sha256, image_group, split, messages, agreement=targets.agreement)


def describe_agreement(agreement: Mapping[str, Array], split: Split) -> list[str]:
    """A sentence per label about the agreement of its readers in each part of the split; [] without labels that state it."""
    lines = []
    for label, shares in agreement.items():
        known = {part: values[np.isfinite(values)] for part in PARTS for values in [shares[split.rows(part)]]}
        parts = [f"{part} {v.mean():.3f} (all agree on {(v == 1).sum():,} of {len(v):,} images)" for part, v in known.items() if len(v)]
        lines += [f"{label}: agreement of readers or rows: {', '.join(parts)}"] if parts else []
    return lines
