"""Selective prediction: the least certain images are referred to a person, and the rest is decided by the model.

Images of equal certainty are referred together, each by an equal part of itself, so that exactly the stated share is referred and no result
depends on the order of the images.

Source: risk and coverage, El-Yaniv and Wiener 2010, JMLR 11, 1605; Geifman and El-Yaniv 2017, arXiv:1705.08500.

Shapes: N images, C label columns, K classes, B weightings.
"""

from typing import NamedTuple

import numpy as np

from encoders.runtime.arrays import Array, FloatArray
from transfer.metrics.ranking import auroc, macro


class Decided(NamedTuple):
    """Decisions on one label, or on the one class of an image.

    truth: (N,) class numbers.  error: (N,) bool.  certainty: (N,) higher = more certain.  y, s: (N, C) labels and scores for the AUROC."""

    truth: Array
    error: Array
    certainty: Array
    y: Array
    s: Array


class KeptMetrics(NamedTuple):
    """Metrics of the images that are not referred, (B,) each. NaN where there is nothing to measure.

    recall: (B, K) of each class.  caught: share of all errors that are among the referred images."""

    error: FloatArray
    recall: FloatArray
    auroc: FloatArray
    caught: FloatArray


def keep_most_certain(certainty: Array, share: float, weight: Array) -> FloatArray:
    """(N, B) the weight of each image that stays when `share` of the total weight is referred, the least certain first.

    certainty: (N,).  weight: (N, B), such as how often the patient of an image is drawn."""
    order = np.argsort(-certainty, kind="stable")
    ordered = np.asarray(weight, dtype=np.float64)[order]
    falling = certainty[order]
    first = np.flatnonzero(np.append(True, falling[1:] != falling[:-1])[: len(order)])  # where each group of equal certainty begins
    group = np.add.reduceat(ordered, first, axis=0) if len(order) else ordered
    before = np.cumsum(group, axis=0) - group
    room = (1 - share) * ordered.sum(axis=0) - before
    part = np.clip(np.divide(room, group, out=np.zeros_like(group), where=group > 0), 0, 1)
    kept = np.empty_like(ordered)
    kept[order] = ordered * np.repeat(part, np.diff(np.append(first, len(order))), axis=0)
    return kept


def measure_kept(decided: Decided, share: float, weight: Array, classes: int, ranking: bool = True) -> KeptMetrics:
    """The metrics of the images that stay when `share` of them is referred.  weight: (N, B).  ranking: whether the AUROC is measured."""
    kept = keep_most_certain(decided.certainty, share, weight)
    wrong, right = decided.error.astype(np.float64), (~decided.error).astype(np.float64)
    recalls = [_divide(kept.T @ (right * (decided.truth == c)), kept.T @ (decided.truth == c).astype(np.float64)) for c in range(classes)]
    left, total = kept.T @ wrong, np.asarray(weight, dtype=np.float64).T @ wrong
    area = np.asarray(macro(auroc(decided.y, decided.s, weight=kept))[0]) if ranking else np.full(kept.shape[1], np.nan)
    return KeptMetrics(_divide(left, kept.sum(axis=0)), np.stack(recalls, axis=-1), area, 1 - _divide(left, total))


def _divide(count: Array, total: Array) -> FloatArray:
    return np.asarray(np.divide(count, total, out=np.full(np.shape(total), np.nan), where=total > 0))
