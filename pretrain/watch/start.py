"""How far an encoder has moved from its start: drift of its features, and neighbours that are no longer the same.

Both need no labels. They do not say whether the encoder became better or worse: a large drift with the same neighbours is harmless.

Shapes: N probe images, D width, K neighbours, Q labeled queries, C classes.
"""

import math

import numpy as np

from encoders.features.nearest import find_neighbours
from encoders.runtime.arrays import Array, BoolArray, FloatArray, IntArray

NEIGHBOURS = 10  # K: a tenth of the default probe would be 25; ten are those that a k-NN vote weighs most


def feature_drift(now: Array, start: Array) -> float:
    """Mean of 1 - cosine between the features of an image now and at the start: 0 for no change, 1 for unrelated directions.

    now, start: (N, D)."""
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (now.astype(float), start.astype(float)))
    return float(1 - (a * b).sum(axis=1).mean())


def neighbour_overlap(now: Array, start: Array, k: int = NEIGHBOURS) -> float:
    """Mean share of the K nearest other images that are the same now and at the start: 1 for no change, K / (N - 1) by chance.

    now, start: (N, D), N > 1."""
    k = min(k, len(now) - 1)
    own, other = (nearest_others(x, k) for x in (now, start))  # (N, K) each
    return float((own[:, :, None] == other[:, None, :]).any(axis=2).mean())


def nearest_others(x: Array, k: int) -> IntArray:
    """(N, K) indices of the K rows of x (N, D) closest to each row, without the row itself."""
    _, index = find_neighbours(x, x, k + 1)
    itself = index == np.arange(len(x))[:, None]
    itself[~itself.any(axis=1), -1] = True  # equal rows came first: leave out the last one instead
    nearest: IntArray = index[~itself].reshape(len(x), k)
    return nearest


def paired_gain(now: BoolArray, start: BoolArray, y: IntArray, patients: Array) -> tuple[float, float]:
    """Balanced accuracy now minus that of the start, and its standard error over patients.

    now, start: (Q,) whether a query is classified correctly.  y: (Q,) classes 0, 1, ...  patients: (Q,) patient of each query."""
    classes, counts = np.unique(y, return_counts=True)
    weight = 1 / (len(classes) * counts[np.searchsorted(classes, y)])  # (Q,): every class weighs 1 / C
    difference: FloatArray = now.astype(float) - start.astype(float)
    mean_of = {c: difference[y == c].mean() for c in classes}
    residual = weight * (difference - np.array([mean_of[c] for c in y]))
    _, patient = np.unique(patients, return_inverse=True)
    return float((weight * difference).sum()), math.sqrt(float((np.bincount(patient, residual) ** 2).sum()))
