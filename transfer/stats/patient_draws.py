"""How often each patient is drawn in each resample: for statistics that are sums over patients.

Shapes: N rows, U patients, B resamples.
"""

import numpy as np

from encoders.runtime.arrays import Array, IntArray
from transfer.stats.bootstrap import draw_resamples


def draw_patients(patient: Array, n: int, seed: int = 0) -> tuple[IntArray, IntArray]:
    """(N,) the code of each row's patient, and (U, 1 + n) how often each patient is drawn: once, then as in `draw_resamples`."""
    _, first, code = np.unique(np.asarray(patient).astype(str), return_index=True, return_inverse=True)
    resamples = [weight[first] for weight in draw_resamples(patient, n, seed=seed)]
    return code.reshape(-1), np.concatenate([np.ones((len(first), 1)), *resamples], axis=1).astype(np.int64)
