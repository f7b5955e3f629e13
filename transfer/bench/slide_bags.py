"""Tiles of a store as bags, one per slide, with the label and the patient of each slide.

Shapes: T tiles, N slides, C columns of the target.
"""

from dataclasses import dataclass

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.local_notes import show_key
from transfer.tasks.load import LoadedTask


@dataclass(frozen=True)
class SlideBags:
    """rows: (T,) rows of the store; slide i has rows[ends[i]:ends[i + 1]].  ends: (N + 1,).  key, patient: (N,).  y: (N, C)."""

    rows: Array
    ends: Array
    key: Array
    patient: Array
    y: Array


def gather_slides(loaded: LoadedTask, rows: Array) -> SlideBags:
    """The given rows of a task's store by slide. Raises InputError without slides, or when tiles of a slide differ in patient or label."""
    task, store = loaded.task.name, loaded.store
    if not store.has_column("slide"):
        raise InputError(
            f"the protocol mil scores slides, and the store of task {task!r} has no column `slide`; ingest it with a slide for every tile: "
            "`encoders ingest wsi`, or `encoders ingest folder --pattern '(?P<slide>...)'`"
        )
    name = np.asarray(store.column("slide")).astype(str)[rows]
    if empty := int((name == "").sum()):
        raise InputError(f"{empty} of the {len(name)} tiles of task {task!r} have no slide; the protocol mil needs the slide of every tile")
    if shared := store.find_split_name(name, rows):
        raise InputError(f"the slide {shared[0]!r} of task {task!r} is in {shared[1]} and in {shared[2]}; give slides unique names")
    order = np.argsort(name, kind="stable")
    rows, name = rows[order], name[order]
    start = np.flatnonzero(np.r_[True, name[1:] != name[:-1]])
    ends, key = np.r_[start, len(rows)], name[start]
    slide = np.repeat(np.arange(len(key)), np.diff(ends))  # (T,)
    patient, y = loaded.patient[rows].astype(str), loaded.y[rows]
    _refuse_mixed_slides(np.asarray(patient != patient[start][slide]), slide, key, task, "are of two patients; give slides unique names")
    low, high = np.fmin.reduceat(y, start, axis=0), np.fmax.reduceat(y, start, axis=0)  # NaN only where the label of no tile is known
    _refuse_mixed_slides(
        np.any(low < high, axis=1)[slide],
        slide,
        key,
        task,
        "have different labels, so the label is of tiles and not of slides; use knn or linear",
    )
    return SlideBags(rows, ends, key, patient[start], high)


def _refuse_mixed_slides(mixed: Array, slide: Array, key: Array, task: str, reason: str) -> None:
    if mixed.any():
        slides = np.unique(slide[mixed])
        raise InputError(f"tiles of {len(slides)} slides of task {task!r}, e.g. {show_key(key[slides[0]])!r}, {reason}")


def reduce_to_slides(values: Array, ends: Array) -> Array | None:
    """(N,) one value per slide from a column of tiles (T,); None when the tiles of a slide differ."""
    first = values[ends[:-1]]
    repeated = np.repeat(first, np.diff(ends))
    return first if np.array_equal(values, repeated, equal_nan=values.dtype.kind == "f") else None
