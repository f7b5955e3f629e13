"""Conformal prediction sets: the classes that an image may have, so that the true one is among them with a stated probability.

A score says how unusual a class is for an image. A set has the classes whose score is at most a quantile of the scores that the true
classes have on calibration images. Images of one patient are not exchangeable, patients are: each patient counts as much as any other,
whatever the number of images, and the promise is about an image drawn from a new patient.

Sources: split conformal prediction, Vovk et al. 2005; LAC, Sadinle et al. 2019, arXiv:1609.00451; APS, Romano et al. 2020,
arXiv:2006.02544; RAPS, Angelopoulos et al. 2021, arXiv:2009.14193; several images a patient, Lee et al. 2023, arXiv:2306.06342.

Shapes: N images, C classes.
"""

from typing import Literal, TypeAlias

import numpy as np

from encoders.runtime.arrays import Array, BoolArray, FloatArray, IntArray

SetScore: TypeAlias = Literal["aps", "raps", "lac"]
RAPS_PENALTY, RAPS_FREE = 0.1, 1  # added for each class beyond so many; the paper tunes both, for a thousand classes


def score_classes(p: Array, kind: SetScore, uniform: Array) -> FloatArray:
    """(N, C) how unusual each class is for an image.  p: (N, C) probabilities.  uniform: (N,) in [0, 1), drawn once for each image.

    lac: 1 - p.  aps: the probability of all classes that are more probable, and a random share of its own.  raps: the same, and a penalty
    for each class after the first RAPS_FREE. Equal probabilities are in the order of the classes."""
    p = np.asarray(p, dtype=np.float64)
    if kind == "lac":
        return np.asarray(1 - p)
    order = np.argsort(-p, axis=1, kind="stable")
    ordered = np.take_along_axis(p, order, axis=1)
    scores = np.cumsum(ordered, axis=1) - ordered + np.asarray(uniform, dtype=np.float64)[:, None] * ordered
    if kind == "raps":
        scores = scores + RAPS_PENALTY * np.maximum(np.arange(1, p.shape[1] + 1) - RAPS_FREE, 0)
    unsorted: FloatArray = np.empty_like(scores)
    np.put_along_axis(unsorted, order, scores, axis=1)
    return unsorted


def patient_quantile(scores: Array, patient: Array, level: float) -> float:
    """The smallest value that is at least the score of an image of a new patient with probability `level`; inf with too few patients.

    scores: (N,).  patient: (N,) of any type. Each of U patients has the weight 1 / (U + 1), and so has the new one, at infinity."""
    if not len(scores):
        return float("inf")
    _, code, count = np.unique(np.asarray(patient), return_inverse=True, return_counts=True)
    weight = 1 / (count[code.reshape(-1)] * (len(count) + 1))
    order = np.argsort(scores, kind="stable")
    reached = np.flatnonzero(np.cumsum(weight[order]) >= level * (1 - 1e-12))  # sums of fractions miss a level by rounding
    return float(scores[order[reached[0]]]) if len(reached) else float("inf")


def calibrate_sets(scores: Array, truth: IntArray, patient: Array, level: float, by_class: bool = False) -> FloatArray:
    """(C,) the largest score with which a class is in a set.  scores: (N, C) of calibration images.  truth: (N,) class numbers.

    by_class: a quantile for each class, from its own images, which makes the promise for each class; otherwise one for all."""
    own = scores[np.arange(len(scores)), truth]
    if not by_class:
        return np.full(scores.shape[1], patient_quantile(own, patient, level))
    return np.array([patient_quantile(own[truth == c], np.asarray(patient)[truth == c], level) for c in range(scores.shape[1])])


def predict_sets(scores: Array, limits: Array) -> BoolArray:
    """(N, C) whether a class is in the set of an image."""
    return np.asarray(scores <= limits)


def spread_classes(y: Array, scores: Array) -> tuple[IntArray, FloatArray, BoolArray]:
    """(N,) class numbers, (N, C) probabilities, and (N,) whether the label is known; the one column of a binary task becomes two."""
    p = np.asarray(scores, dtype=np.float64)
    if p.shape[1] == 1:
        y, p = np.concatenate([1 - y, y], axis=1), np.concatenate([1 - p, p], axis=1)
    known: BoolArray = np.asarray(~np.isnan(np.asarray(y, dtype=np.float64)).any(axis=1))
    truth: IntArray = np.nan_to_num(y).argmax(axis=1)
    return truth, p, known
