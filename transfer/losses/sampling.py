"""Draws of train images by which rare classes come more often: a class, then one of its patients, then one of the patient's images of it.

Source of the family: Kang et al. 2020, arXiv:1910.09217, eq. 1: class j is drawn in proportion to n_j^q; q = 0 draws all classes equally
often, q = 1/2 in proportion to the square root. Departure: n_j counts patients, so that one with many images is not drawn more often.

Shapes: N rows, C labels or classes.
"""

import numpy as np

from encoders.runtime.arrays import Array, FloatArray, IntArray

LEAST_SHARE = 1e-12


def assign_classes(y: Array, kind: str) -> IntArray:
    """(N,) the class by which a row is drawn: its own, or its rarest positive label; C for a row without one."""
    positive = np.nan_to_num(y) > 0.5
    if kind == "multiclass":
        return np.asarray(np.where(positive.any(axis=1), positive.argmax(axis=1), y.shape[1]))
    by_rarity = np.argsort(positive.sum(axis=0), kind="stable")
    rarest = by_rarity[positive[:, by_rarity].argmax(axis=1)]
    return np.asarray(np.where(positive.any(axis=1), rarest, y.shape[1]))


def draw_weights(y: Array, kind: str, patient: Array, power: float) -> FloatArray:
    """(N,) probability of each row. patient: (N,).  power: q; 0 or 1/2."""
    of_class = assign_classes(y, kind)
    weight = np.zeros(len(y))
    for number in np.unique(of_class):
        rows = np.flatnonzero(of_class == number)
        _, code, images = np.unique(patient[rows].astype(str), return_inverse=True, return_counts=True)
        weight[rows] = len(images) ** power / len(images) / images[code]
    return np.asarray(weight / weight.sum())


def prevalence_shift(y: Array, kind: str, weight: Array) -> FloatArray:
    """(C,) what draws by `weight` (N,) add to the optimal logits: the log ratio of class shares, or of the odds of a label."""
    known = ~np.isnan(y)
    plain = known / np.maximum(known.sum(axis=0), 1)
    drawn = known * weight[:, None] / np.maximum((known * weight[:, None]).sum(axis=0), LEAST_SHARE)
    before, after = ((np.nan_to_num(y) * share).sum(axis=0) for share in (plain, drawn))
    if kind == "multiclass":
        return np.asarray(np.where(before > 0, np.log(np.maximum(after, LEAST_SHARE) / np.maximum(before, LEAST_SHARE)), 0.0))
    both = (before > 0) & (before < 1) & (after > 0) & (after < 1)
    odds = [np.where(both, share / np.maximum(1 - share, LEAST_SHARE), 1.0) for share in (after, before)]
    return np.asarray(np.log(odds[0] / odds[1]))
