"""Placement values when each row counts several times, for many weightings at once.

Resampled rows are the same rows with other weights, so that rows are sorted once, and every weighting takes two cumulative sums. With
weights of one, the values are those of `placement_values`.

Shapes: N rows, B weightings.
"""

from dataclasses import dataclass

import numpy as np

from encoders.runtime.arrays import Array, BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class SortedRows:
    """The rows of one label by increasing score. positive, negative: (N,) masks, both false where the label is unknown.

    order: (N,) sorted position -> row.  first, last: (N,) the ends of the group of equal scores of each sorted position."""

    positive: BoolArray
    negative: BoolArray
    order: IntArray
    first: IntArray
    last: IntArray


def sort_rows(y: Array, s: Array) -> SortedRows:
    """The rows of one label by score. y, s: (N,)."""
    order = np.argsort(s, kind="stable")
    _, group, count = np.unique(s[order], return_inverse=True, return_counts=True)
    end = np.cumsum(count)
    return SortedRows(y == 1, y == 0, order, (end - count)[group], end[group] - 1)


def weighted_placements(rows: SortedRows, weight: Array) -> FloatArray:
    """(N, B) placement values under the weights (N, B); 0 where the label is unknown, NaN where the other class has no weight."""
    positive, negative = (np.asarray(mask[:, None] * weight, dtype=np.float64) for mask in (rows.positive, rows.negative))
    below = _weight_below(rows, negative)  # of negatives, for the positive rows
    above = positive.sum(axis=0) - _weight_below(rows, positive)  # of positives, for the negative rows
    with np.errstate(invalid="ignore", divide="ignore"):
        for_positive, for_negative = below / negative.sum(axis=0), above / positive.sum(axis=0)
    value: FloatArray = np.where(rows.positive[:, None], for_positive, np.where(rows.negative[:, None], for_negative, 0.0))
    return value


def weighted_area(rows: SortedRows, weight: Array) -> FloatArray:
    """(B,) areas under the weights (N, B); NaN where a class has no weight."""
    value, positive = weighted_placements(rows, weight), rows.positive[:, None] * weight
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((positive * value).sum(axis=0) / positive.sum(axis=0))


def weighted_errors(rows: SortedRows, weight: Array) -> FloatArray:
    """(N,) what each row contributes to the error of the area under the weights (N,), per unit of its weight."""
    value = weighted_placements(rows, weight[:, None])[:, 0]
    error = np.zeros(len(weight))
    area = np.average(value[rows.positive], weights=weight[rows.positive])
    for mask in (rows.positive, rows.negative):
        error[mask] = (value[mask] - area) / weight[mask].sum()
    return error


def _weight_below(rows: SortedRows, weight: FloatArray) -> FloatArray:
    """(N, B) for every row, the weight of the rows with a lower score and half of that with an equal one."""
    total = np.zeros((len(weight) + 1, weight.shape[1]))
    np.cumsum(weight[rows.order], axis=0, out=total[1:])
    out = np.empty(weight.shape)
    out[rows.order] = (total[rows.first] + total[rows.last + 1]) / 2
    return out
