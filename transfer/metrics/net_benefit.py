"""Net benefit of deciding by a probability threshold, for decision curves.

A threshold t states how many false alarms one found patient is worth: t / (1 - t) of its benefit is lost with each. The net benefit is then
the number of found patients minus that loss, per image. It is 0 for treating nobody.  Source: Vickers and Elkin 2006, eq. 1.

Shapes: N rows, T thresholds, U groups of rows.
"""

import numpy as np

from encoders.runtime.arrays import Array, FloatArray, IntArray


def net_benefit(y: Array, p: Array, thresholds: Array, prevalence: float | None = None) -> FloatArray:
    """(T,) net benefit of treating the rows with p >= t, for one label. y, p: (N,).  thresholds: (T,) in (0, 1), ascending.

    prevalence: of the population to decide on; None: that of the rows.  NaN without both classes.  Unknown labels are left out."""
    hit, false, positives, negatives = (total.sum(axis=0) for total in count_treated(y, p, thresholds, np.zeros(len(y), np.int64)))
    return net_benefit_of_counts(hit, false, positives, negatives, thresholds, prevalence)


def treat_all(prevalence: float, thresholds: Array) -> FloatArray:
    """(T,) net benefit of treating everybody."""
    return np.asarray(prevalence - (1 - prevalence) * odds(thresholds))


def odds(thresholds: Array) -> FloatArray:
    """t / (1 - t), the loss of a false alarm in units of the benefit of a found patient."""
    t = np.asarray(thresholds, dtype=np.float64)
    return np.asarray(t / (1 - t))


def count_treated(y: Array, p: Array, thresholds: Array, code: IntArray) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """For each group of rows: positives and negatives with p >= t, (U, T) each, and all its positives and negatives, (U, 1) each.

    y, p, code: (N,); code: group of each row, from 0."""
    groups, steps = int(code.max(initial=-1)) + 1, len(thresholds)
    passed = np.searchsorted(thresholds, p, side="right")  # how many thresholds treat the row, 0..T
    tables = []
    for side in (y > 0.5, y <= 0.5):  # NaN is neither
        cells = np.bincount(code[side] * (steps + 1) + passed[side], minlength=groups * (steps + 1)).reshape(groups, steps + 1)
        tables.append(np.cumsum(cells[:, ::-1], axis=1)[:, ::-1])  # (U, T + 1) rows that at least so many thresholds treat
    (hit, false) = tables
    return hit[:, 1:], false[:, 1:], hit[:, :1], false[:, :1]


def net_benefit_of_counts(
    hit: Array, false: Array, positives: Array, negatives: Array, thresholds: Array, prevalence: float | None = None
) -> FloatArray:
    """(..., T) net benefit from treated positives and negatives (..., T), and all positives and negatives (..., 1)."""
    both = (positives > 0) & (negatives > 0)
    sensitivity, alarms = (np.divide(a, b, out=np.full(np.shape(a), np.nan), where=both) for a, b in ((hit, positives), (false, negatives)))
    share = positives / np.maximum(positives + negatives, 1) if prevalence is None else np.float64(prevalence)
    return np.asarray(sensitivity * share - alarms * (1 - share) * odds(thresholds))
