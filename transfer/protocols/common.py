"""The rows that protocols are fitted on, and helpers that several protocols share. The contract itself is in `contract.py`.

Shapes: N rows, D width, C label columns. A binary task has C = 1; a multi-class task has one column per class, one-hot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from encoders.runtime.arrays import Array, BoolArray, IntArray
from encoders.runtime.errors import InputError
from transfer.metrics import auroc, log_loss, macro
from transfer.tasks.task import TaskKind

if TYPE_CHECKING:
    from encoders.store.store import Store
    from encoders.zoo.encoder import Encoder

Candidate = TypeVar("Candidate", bound=Mapping[str, Any])


@dataclass(frozen=True)
class Features:
    """Rows of a split as features. x: (N, D) float32.  y: (N, C) float32 in {0, 1}, NaN = unknown.  key, patient: (N,).

    sha256: (N,) of the pixels of each image; None where it is not known, and keys alone order the rows."""

    x: Array
    y: Array
    key: Array
    patient: Array
    kind: TaskKind = "multilabel"
    sha256: Array | None = None

    def __len__(self) -> int:
        return len(self.x)

    def at(self, rows: Array) -> "Features":
        """The given rows, by index or mask; this object itself, not a copy, when these are all rows in their order."""
        if is_every_row(rows, len(self)):
            return self
        sha256 = None if self.sha256 is None else self.sha256[rows]
        return replace(self, x=self.x[rows], y=self.y[rows], key=self.key[rows], patient=self.patient[rows], sha256=sha256)


@dataclass(frozen=True)
class ImageSet:
    """Rows of a split as images: `index` (N,) into the store, and the encoder that reads them; the rest as in Features."""

    store: "Store"
    encoder: "Encoder"
    index: Array
    y: Array
    key: Array
    patient: Array
    kind: TaskKind = "multilabel"
    sha256: Array | None = None

    def __len__(self) -> int:
        return len(self.index)

    def at(self, rows: Array) -> "ImageSet":
        """The given rows, by index or mask."""
        sha256 = None if self.sha256 is None else self.sha256[rows]
        return replace(self, index=self.index[rows], y=self.y[rows], key=self.key[rows], patient=self.patient[rows], sha256=sha256)


@dataclass(frozen=True)
class Bags:
    """Slides of a split, each a bag of the features of its tiles. x: (T, D) float32, bag i is x[ends[i]:ends[i + 1]].

    The rest as in Features, one row per slide."""

    x: Array
    ends: Array
    y: Array
    key: Array
    patient: Array
    kind: TaskKind = "multilabel"

    def __len__(self) -> int:
        return len(self.key)

    def bag(self, i: int) -> Array:
        """(tiles, D) of slide i."""
        return self.x[self.ends[i] : self.ends[i + 1]]


Orderable = TypeVar("Orderable", Features, ImageSet)


def validation_score(y: Array, scores: Array) -> float:
    """Macro AUROC over the labels that have both classes; the negative log loss where none has. The default of `fit`."""
    value, left_out = macro(auroc(y, scores))
    return float(-np.nanmean(log_loss(y, scores))) if left_out == np.shape(y)[1] else float(value)


def best_candidate(table: Sequence[Candidate]) -> Candidate:
    """The candidate with the highest "score"; the first among equals, so a grid starts with the simplest candidate.

    Raises InputError when no candidate has a finite score."""
    known = [row for row in table if np.isfinite(row["score"])]
    if not known:
        raise InputError("no candidate can be scored on the validation split: it has no label with a known value; give it more patients")
    return max(known, key=lambda row: row["score"])


def is_every_row(rows: Array, n: int) -> bool:
    """Whether an index or a mask selects all of n rows in their order."""
    if rows.dtype == bool:
        return bool(rows.all())
    return len(rows) == n and np.array_equal(rows, np.arange(n))


def order_by_image(key: Array, sha256: Array | None) -> IntArray:
    """(N,) rows in an order that depends on the images alone: by the hash of the pixels, and equal images by key.

    Whatever is drawn by the number of a row, or decided by which row comes first, then does not depend on the order of the store."""
    names = [key.astype(str)] if sha256 is None else [key.astype(str), sha256.astype(str)]
    return np.lexsort(names).astype(np.int64)


def in_image_order(rows: Orderable) -> Orderable:
    """The rows in the order of `order_by_image`."""
    return rows.at(order_by_image(rows.key, rows.sha256))


def join_features(train: Features, val: Features) -> Features:
    """Train and validation rows as one set, for refitting after the choice is made."""
    both = zip((train.x, train.y, train.key, train.patient), (val.x, val.y, val.key, val.patient), strict=True)
    x, y, key, patient = (np.concatenate(columns) for columns in both)
    sha256 = None if train.sha256 is None or val.sha256 is None else np.concatenate([train.sha256, val.sha256])
    return replace(train, x=x, y=y, key=key, patient=patient, sha256=sha256)


def find_labeled_rows(y: Array, kind: TaskKind) -> BoolArray:
    """(N,) rows usable for training: at least one label is known; in a multi-class task all columns are known or none is."""
    unknown = np.isnan(y)
    return ~np.asarray(unknown.any(axis=1) if kind == "multiclass" else unknown.all(axis=1))
