"""Tiles of a store as bags, one a slide: whose tiles they are, what the slide's label and patient are.

Shapes: T tiles, N slides, C columns of the target.
"""

from dataclasses import dataclass

import numpy as np

from encoders.runtime.errors import InputError
from transfer.tasks.load import LoadedTask


@dataclass(frozen=True)
class SlideBags:
    """rows: (T,) of the store; slide i has rows[ends[i]:ends[i + 1]].  ends: (N + 1,).  key, patient: (N,).  y: (N, C)."""

    rows: np.ndarray
    ends: np.ndarray
    key: np.ndarray
    patient: np.ndarray
    y: np.ndarray


def gather_slides(loaded: LoadedTask, rows: np.ndarray) -> SlideBags:
    """The given rows of a task's store by slide. Raises InputError without slides, or where tiles of one differ in patient or label."""
    task, store = loaded.task.name, loaded.store
    if not store.has_column("slide"):
        raise InputError(
            f"the protocol mil scores slides, and the store of task {task!r} has no column `slide`; ingest with a slide for every tile: "
            "`encoders ingest wsi`, or `encoders ingest folder --pattern '(?P<slide>...)'`"
        )
    name = np.asarray(store.column("slide")).astype(str)[rows]
    if empty := int((name == "").sum()):
        raise InputError(f"{empty} of the {len(name)} tiles of task {task!r} have no slide; the protocol mil needs the slide of every tile")
    if two := store.find_split_name(name, rows):
        raise InputError(f"the slide {two[0]!r} of task {task!r} is in {two[1]} and in {two[2]}; give slides names that tell them apart")
    order = np.argsort(name, kind="stable")
    rows, name = rows[order], name[order]
    start = np.flatnonzero(np.r_[True, name[1:] != name[:-1]])
    ends, key = np.r_[start, len(rows)], name[start]
    of = np.repeat(np.arange(len(key)), np.diff(ends))  # (T,)
    patient, y = loaded.patient[rows].astype(str), loaded.y[rows]
    _refuse_mixed_slides(
        np.asarray(patient != patient[start][of]), of, key, task, "are of two patients; slides need names that tell them apart"
    )
    low, high = np.fmin.reduceat(y, start, axis=0), np.fmax.reduceat(y, start, axis=0)  # NaN only where no tile is known
    _refuse_mixed_slides(
        np.any(low < high, axis=1)[of], of, key, task, "have different labels: a label of tiles, not of slides; use knn or linear"
    )
    return SlideBags(rows, ends, key, patient[start], high)


def _refuse_mixed_slides(wrong: np.ndarray, of: np.ndarray, key: np.ndarray, task: str, why: str) -> None:
    if wrong.any():
        bad = np.unique(of[wrong])
        raise InputError(f"tiles of {len(bad)} slides of task {task!r}, e.g. {str(key[bad[0]])!r}, {why}")


def reduce_to_slides(values: np.ndarray, ends: np.ndarray) -> np.ndarray | None:
    """(N,) a column of tiles (T,) as one of slides; None where tiles of a slide differ: then it says nothing of the slide."""
    same = values[ends[:-1]]
    back = np.repeat(same, np.diff(ends))
    return same if np.array_equal(values, back, equal_nan=values.dtype.kind == "f") else None
