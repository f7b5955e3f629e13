"""The rows that protocols are fitted on, and helpers that several protocols share. The contract itself is in `contract.py`.

Shapes: N rows, D width, C label columns. A binary task has C = 1; a multi-class task has one column per class, one-hot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from encoders.runtime.arrays import Array, BoolArray
from encoders.runtime.errors import InputError
from transfer.metrics import auroc, log_loss, macro
from transfer.tasks.task import TaskKind

if TYPE_CHECKING:
    from encoders.store.store import Store
    from encoders.zoo.encoder import Encoder

Candidate = TypeVar("Candidate", bound=Mapping[str, Any])


@dataclass(frozen=True)
class Features:
    """Rows of a split as features. x: (N, D) float32.  y: (N, C) float32 in {0, 1}, NaN = unknown.  key, patient: (N,)."""

    x: Array
    y: Array
    key: Array
    patient: Array
    kind: TaskKind = "multilabel"

    def __len__(self) -> int:
        return len(self.x)

    def at(self, rows: Array) -> "Features":
        """The given rows, by index or mask."""
        return replace(self, x=self.x[rows], y=self.y[rows], key=self.key[rows], patient=self.patient[rows])


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

    def __len__(self) -> int:
        return len(self.index)

    def at(self, rows: Array) -> "ImageSet":
        """The given rows, by index or mask."""
        return replace(self, index=self.index[rows], y=self.y[rows], key=self.key[rows], patient=self.patient[rows])


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


def join_features(train: Features, val: Features) -> Features:
    """Train and validation rows as one set, for refitting after the choice is made."""
    both = zip((train.x, train.y, train.key, train.patient), (val.x, val.y, val.key, val.patient), strict=True)
    x, y, key, patient = (np.concatenate(columns) for columns in both)
    return replace(train, x=x, y=y, key=key, patient=patient)


def find_labeled_rows(y: Array, kind: TaskKind) -> BoolArray:
    """(N,) rows usable for training: at least one label is known; in a multi-class task all columns are known or none is."""
    unknown = np.isnan(y)
    return ~np.asarray(unknown.any(axis=1) if kind == "multiclass" else unknown.all(axis=1))
