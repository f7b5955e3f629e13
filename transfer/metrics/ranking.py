"""Ranking metrics: AUROC and average precision, for one weighting of the rows or a thousand at once.

Both are sums over groups of equal scores. A group without an anchor (a row of the class that is summed over) only adds to a running
total, so groups are divided at anchors: with 1 % positives, the arrays that grow with the number of weightings are a hundred times
shorter than N.

Shapes: N rows, C labels, B weightings, A anchor groups.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from encoders.runtime.arrays import Array, FloatArray

RANKING_CHUNK = 128  # weightings at a time: (N, 128) float32 is 13 MB at 25,596 rows, which fits in the cache


def auroc(y: Array, s: Array, weight: Array | None = None) -> FloatArray:
    """(C,) or (B, C) area under the ROC curve: the weighted share of (positive, negative) pairs in the right order; ties count half.

    NaN for a label without positives or without negatives."""
    return _by_label(_label_auroc, _plain_auroc, y, s, weight)


def average_precision(y: Array, s: Array, weight: Array | None = None) -> FloatArray:
    """(C,) or (B, C) average precision: sum over thresholds of precision times the increase of recall; NaN without positives."""
    return _by_label(_label_average_precision, _plain_average_precision, y, s, weight)


def micro(metric: Callable[..., FloatArray], y: Array, s: Array, weight: Array | None = None) -> FloatArray:
    """`metric` over all known (row, label) cells pooled: () or (B,)."""
    per_cell = None if weight is None else np.repeat(weight, y.shape[1], axis=0)
    return np.asarray(metric(np.reshape(y, (-1, 1)), np.reshape(s, (-1, 1)), per_cell)[..., 0])


def macro(values: Array) -> tuple[Any, int]:
    """The mean over the defined labels, and the number of labels that are never defined. values: (C,) or (B, C)."""
    values = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    left_out = int(values.shape[-1] - known.reshape(-1, values.shape[-1]).any(axis=0).sum())
    return (float(mean) if mean.ndim == 0 else mean), left_out


def _by_label(
    metric: Callable[[Array, Array, Array], Array], plain: Callable[[Array, Array], float], y: Array, s: Array, weight: Array | None
) -> FloatArray:
    """metric: of weighted rows.  plain: the same without weights, which takes a third of the time."""
    y, s = _as_columns(y), _as_columns(s)
    w = np.empty((len(y), 1)) if weight is None else np.asarray(weight).reshape(len(y), -1)
    out = np.empty((w.shape[1], y.shape[1]))
    for c in range(y.shape[1]):
        known = ~np.isnan(y[:, c])
        rows = np.flatnonzero(known)[np.argsort(s[known, c])]  # ascending scores; equal ones are a group, whatever their order
        positive, score = y[rows, c] > 0.5, s[rows, c]
        if weight is None:
            out[0, c] = plain(positive, score)
            continue
        for at in range(0, w.shape[1], RANKING_CHUNK):
            out[at : at + RANKING_CHUNK, c] = metric(positive, score, w[rows, at : at + RANKING_CHUNK])
    return out[0] if weight is None else out


def _as_columns(a: Array) -> Array:
    a = np.asarray(a)
    return a[:, None] if a.ndim == 1 else a


def _plain_auroc(positive: Array, score: Array) -> float:
    """AUROC of one label. positive, score: (n,) in ascending order of score."""
    hits, last = _count_positives(positive, score)
    if not len(last) or hits[-1] in (0, len(positive)):
        return float("nan")
    misses = last + 1 - hits
    before = np.concatenate([[0], misses[:-1]])  # negatives in lower groups
    return float((np.diff(hits, prepend=0) * (before + misses) / 2).sum() / (hits[-1] * misses[-1]))


def _plain_average_precision(positive: Array, score: Array) -> float:
    hits, last = _count_positives(positive[::-1], score[::-1])  # from the highest score on
    return float((np.diff(hits, prepend=0) * hits / (last + 1)).sum() / hits[-1]) if len(last) and hits[-1] else float("nan")


def _count_positives(positive: Array, score: Array) -> tuple[Array, Array]:
    """For every group of equal scores: positives up to its end, and its last row."""
    last = np.flatnonzero(np.concatenate([score[1:] != score[:-1], [True]])[: len(score)])
    return np.cumsum(positive)[last], last


def _label_auroc(positive: Array, score: Array, w: Array) -> Array:
    """(B,) AUROC of one label. positive, score: (n,) in ascending order of score.  w: (n, B)."""
    if positive.all() or not positive.any():
        return np.full(w.shape[1], np.nan)
    # Anchors are the rarer class; counting pairs from the other class gives one minus the area.
    flip = positive.mean() > 0.5
    anchor = ~positive if flip else positive
    own, before, within, after = _count_pairs(anchor, score, w)
    below = before + 0.5 * within
    total = own.sum(axis=0) * after
    with np.errstate(invalid="ignore", divide="ignore"):
        area: Array = (own * below).sum(axis=0) / total
    return 1.0 - area if flip else area


def _count_pairs(anchor: Array, score: Array, w: Array) -> tuple[Array, Array, Array, Array]:
    """For every group of equal scores with an anchor: weight of the anchors (A, B), of other rows in lower groups (A, B) and in the group
    itself (A, B); and the total weight of the other rows (B,)."""
    group = np.concatenate([[0], np.cumsum(score[1:] != score[:-1])])  # (n,)
    holds = np.unique(group[anchor])  # (A,)
    own = _sum_by_slot(w[anchor], np.searchsorted(holds, group[anchor]), len(holds))
    # The other rows fall into 2A + 1 slots in order: below the first anchor group, in it, between it and the second, ...
    other = group[~anchor]
    left = np.searchsorted(holds, other, side="left")
    slot = 2 * left + np.where(holds[np.minimum(left, len(holds) - 1)] == other, 1, 0) * (left < len(holds))
    slots = _sum_by_slot(w[~anchor], slot, 2 * len(holds) + 1)
    upto = np.cumsum(slots, axis=0)
    return own, upto[:-1:2], slots[1::2], upto[-1]


def _sum_by_slot(rows: Array, slot: Array, n: int) -> FloatArray:
    """(n, B) sums of `rows` (m, B) by their ascending `slot` (m,); an empty slot is 0."""
    if len(rows) == n and (slot == np.arange(n)).all():
        return rows.astype(np.float64)
    out = np.zeros((n, rows.shape[1]))
    if len(rows):
        starts = np.flatnonzero(np.concatenate([[True], slot[1:] != slot[:-1]]))
        out[slot[starts]] = np.add.reduceat(rows, starts, axis=0, dtype=np.float64)
    return out


def _label_average_precision(positive: Array, score: Array, w: Array) -> Array:
    if not positive.any():
        return np.full(w.shape[1], np.nan)
    # From the highest score on: the other rows "before" an anchor group are those with higher scores.
    own, before, within, _ = _count_pairs(positive[::-1], score[::-1], w[::-1])
    hit = np.cumsum(own, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = hit / (hit + before + within)
        average: Array = np.where(own > 0, own * precision, 0.0).sum(axis=0) / own.sum(axis=0)
    return average


def roc_curve(y: Array, s: Array) -> tuple[Array, Array, Array]:
    """False positive rate, sensitivity and threshold (predict positive at s >= threshold) of one label, starting at (0, 0)."""
    known = ~np.isnan(y)
    order = np.argsort(-s[known])
    score, positive = s[known][order], y[known][order] > 0.5
    last = np.flatnonzero(np.concatenate([score[1:] != score[:-1], [True]]))
    hit, false = np.cumsum(positive)[last], np.cumsum(~positive)[last]
    with np.errstate(invalid="ignore"):
        rates = [np.concatenate([[0.0], count / count[-1]]) for count in (false, hit)]
    return rates[0], rates[1], np.concatenate([[np.inf], score[last]])


def precision_recall_curve(y: Array, s: Array) -> tuple[Array, Array, Array]:
    """Precision, recall and threshold of one label, from the highest threshold on."""
    known = ~np.isnan(y)
    order = np.argsort(-s[known])
    score, positive = s[known][order], y[known][order] > 0.5
    last = np.flatnonzero(np.concatenate([score[1:] != score[:-1], [True]]))
    hit = np.cumsum(positive)[last]
    return hit / (last + 1), hit / max(int(positive.sum()), 1), score[last]
