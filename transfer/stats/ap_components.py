"""Average precision and what the rows of each patient contribute to its error.

Average precision is the mean over the positive rows i of the precision H_i / (H_i + F_i) at their score, where H_i and F_i count the
positive and the negative rows with at least this score. The contribution of a row is the derivative of the metric with respect to the
weight of the row (the infinitesimal jackknife; Efron 1982, chapter 6). With P positive rows, for a positive row j it is

    1/P * (precision_j - average + sum of F_i / (H_i + F_i)^2 over the positive rows i with s_i <= s_j),

because j raises the precision of every positive row that scores no higher; for a negative row j it is

    -1/P * sum of H_i / (H_i + F_i)^2 over the positive rows i with s_i <= s_j.

The number of patients of both sides is that of the smaller class: a single negative row with a high score lowers the precision of many
positive rows, so that many negative patients do not make its side of the error better known (simulated in `tests/perf/coverage.py`).

All contributions add up to zero, those of one class do not: the share of positives in the test set is a part of the error.

Shapes: N rows, G patients, C labels.
"""

import numpy as np

from encoders.runtime.arrays import Array
from transfer.stats.patients import count_codes
from transfer.stats.placement_components import AreaComponents, has_one_class, sum_by_patient


def measure_average_precisions(y: Array, s: Array, code: Array, n: int) -> list[AreaComponents | None]:
    """The components of the average precision of every label; None for a label with a single class. y, s: (N, C).  code: (N,) below n."""
    return [average_precision_components(y[:, c], s[:, c], code, n) for c in range(y.shape[1])]


def average_precision_components(y: Array, s: Array, code: Array, n: int) -> AreaComponents | None:
    """The components of the average precision of one label; None when it has a single class. y, s: (N,).  code: (N,) patients below n."""
    if has_one_class(y):
        return None
    known = np.flatnonzero(~np.isnan(y))
    rows = known[np.argsort(-np.asarray(s, dtype=np.float64)[known])]  # from the highest score on
    score, positive, patients = s[rows], y[rows] > 0.5, code[rows]
    last = np.flatnonzero(np.concatenate([score[1:] != score[:-1], [True]]))  # of every group of equal scores
    group = np.repeat(np.arange(len(last)), np.diff(last, prepend=-1))
    hits, total = np.cumsum(positive)[last], last + 1.0
    inside = np.diff(hits, prepend=0)  # positive rows of the group
    count = float(hits[-1])
    precision = hits / total
    average = float((inside * precision).sum() / count)
    gain = np.cumsum((inside * (total - hits) / total**2)[::-1])[::-1]  # over this and all lower groups
    loss = np.cumsum((inside * hits / total**2)[::-1])[::-1]
    share = np.where(positive, precision[group] - average + gain[group], -loss[group]) / count
    (high, n_positive), (low, n_negative) = (sum_by_patient(share[rows], patients[rows], n) for rows in (positive, ~positive))
    fewest = min(n_positive, n_negative)
    if fewest > 1:  # the small-sample factor of the smaller class on both sides
        high, low = (side * np.sqrt((1 - 1 / m) / (1 - 1 / fewest)) for side, m in ((high, n_positive), (low, n_negative)))
    return AreaComponents(average, high, low, fewest, fewest, count_codes(patients, n))
