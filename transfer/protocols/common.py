"""What goes into a protocol and what comes out of it.

A protocol is a module with `Config`, `VERSION`, `NEEDS` ("pooled" features, "bags" of them, or "images") and `fit`. It chooses its
hyper-parameters with the function `select` it is handed, on validation rows only; it computes no reported metric and writes no file.
VERSION goes into the protocol's hash: raise it when the same settings would give other scores, so that no table mixes old and new.
One that is refitted on train and validation rows keeps in `held_out` (V, C) what the model before that gave the validation rows: thresholds
and temperature are chosen on those.

Shapes: N rows, D width, C label columns. A binary task has C = 1; a multi-class task has one column a class, one-hot.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from transfer.metrics import auroc, log_loss, macro
from transfer.tasks.task import TaskKind

if TYPE_CHECKING:
    from encoders.store.store import Store

Select = Callable[[Array, Array], float]  # (labels (N, C), scores (N, C)) -> how good, higher is better


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
    """Rows of a split as images: `index` (N,) into the store; the rest as in Features."""

    store: "Store"
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
    """Slides of a split, each a bag of its tiles' features. x: (T, D) float32, bag i is x[ends[i]:ends[i + 1]]; the rest a row a slide."""

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


class Fitted(Protocol):
    """What `fit` returns: everything is chosen, nothing has seen the test split.

    `selection` says what was chosen and the validation score of every candidate; it holds builtins only, so it can go into a record.
    `scores` takes features (M, D), or the ImageSet or Bags that the protocol needs, and gives probabilities (M, C) in float64."""

    selection: dict[str, Any]

    def scores(self, x: Any) -> NDArray[np.float64]: ...


def validation_score(y: Array, scores: Array) -> float:
    """Macro AUROC over the labels that have both classes; the negative log loss where none has. The bench uses it unless told otherwise."""
    value, left_out = macro(auroc(y, scores))
    return float(-np.nanmean(log_loss(y, scores))) if left_out == np.shape(y)[1] else float(value)


def best_candidate(table: list[dict[str, Any]]) -> dict[str, Any]:
    """The candidate with the highest "score"; of equals the first, so a grid is ordered from the simplest on."""
    known = [row for row in table if np.isfinite(row["score"])]
    if not known:
        raise InputError("no candidate can be scored on the validation split: it has no label with a known value; give it more patients")
    return max(known, key=lambda row: row["score"])


def join_features(train: Features, val: Features) -> Features:
    """Train and validation rows as one set, for refitting after the choice is made."""
    x, y, key, patient = (np.concatenate([getattr(train, name), getattr(val, name)]) for name in ("x", "y", "key", "patient"))
    return replace(train, x=x, y=y, key=key, patient=patient)


def find_labeled_rows(y: Array, kind: TaskKind) -> NDArray[np.bool_]:
    """(N,) rows usable for training: with at least one known label; for a multi-class task all columns are known together."""
    unknown = np.isnan(y)
    return ~np.asarray(unknown.any(axis=1) if kind == "multiclass" else unknown.all(axis=1))
