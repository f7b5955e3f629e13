"""How often each patient is drawn in each resample: for statistics that are sums over patients.

Records of one test part have equal patients and so equal resamples. The last draws are kept, unless they are large.

Shapes: N rows, U patients, B resamples, J columns.
"""

from typing import Any

import numpy as np

from encoders.runtime.arrays import Array, FloatArray, IntArray
from transfer.stats.bootstrap import RESAMPLE_CHUNK, draw_counts
from transfer.stats.patients import encode_patients

MOST_KEPT = 2**25  # counts, 64 MB as int16

_kept: dict[tuple[int, int, int], IntArray] = {}


def draw_patients(patient: Array, n: int, seed: int = 0) -> tuple[IntArray, IntArray]:
    """(N,) the code of each row's patient, and (U, 1 + n) how often each patient is drawn: once, then as in `draw_resamples`.

    The counts are int16 and must not be changed."""
    code, size = encode_patients(patient)
    key = size, n, seed
    if key in _kept:
        return code, _kept[key]
    drawn = np.concatenate([np.ones((size, 1), np.int16), *(c.astype(np.int16) for c in draw_counts(size, n, seed))], axis=1)
    drawn.flags.writeable = False
    if drawn.size <= MOST_KEPT:
        _kept.clear()
        _kept[key] = drawn
    return code, drawn


def sum_drawn(drawn: IntArray, table: Array) -> FloatArray:
    """(B, J) sums over the drawn patients. drawn: (U, B) counts.  table: (U, J) counts of each patient, dense or sparse."""
    kind = exact_type(drawn, table)
    cells = table.astype(kind)
    steps = range(0, drawn.shape[1], RESAMPLE_CHUNK)
    return np.concatenate([np.asarray((drawn[:, at : at + RESAMPLE_CHUNK].astype(kind).T @ cells), np.float64) for at in steps])


def exact_type(drawn: IntArray, table: Array) -> type[Any]:
    """float32 if it holds all sums of whole numbers exactly, which it does below 2^24; else float64."""
    largest = float(abs(table).sum(axis=0).max(initial=0)) * float(drawn.max(initial=0))
    return np.float32 if largest < 2**24 else np.float64
