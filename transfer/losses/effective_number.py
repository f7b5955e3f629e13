"""Class weights by effective numbers of images.  Source: Cui et al. 2019, arXiv:1901.05555, eq. 2 and sec. 4: (1 - beta) / (1 - beta^n).

The weights of K classes sum to K. Of a label, the weight of positives is relative to that of negatives. Departure: they are normalised by
the sum of the weights of a batch, as `class_weights` are, so that they do not change the learning rate.

Shapes: K classes, C labels or classes.
"""

import numpy as np

from encoders.runtime.arrays import Array, FloatArray
from transfer.losses.class_counts import ClassCounts
from transfer.losses.supervised import MAX_CLASS_WEIGHT


def effective_number_weights(count: Array, beta: float) -> FloatArray:
    """(K,) weights of classes with `count` images each, with sum K; a class without images has weight 1, and does not count."""
    weight, present = np.ones(len(count)), np.asarray(count) > 0
    n = np.asarray(count, dtype=np.float64)[present]
    inverse = (1 - beta) / -np.expm1(n * np.log(beta)) if beta > 0 else np.ones(len(n))  # 1 - beta^n without cancellation
    weight[present] = inverse * len(n) / inverse.sum() if len(n) else inverse
    return weight


def effective_weights(counts: ClassCounts, kind: str, beta: float) -> FloatArray:
    """(C,) in the form of `class_weights`: of each class, or of positives against negatives of a label."""
    if kind == "multiclass":
        weight = effective_number_weights(counts.positive, beta)
    else:
        pairs = np.stack([counts.positive, counts.negative], axis=1)
        both = np.stack([effective_number_weights(pair, beta) for pair in pairs])  # (C, 2)
        weight = np.where(counts.is_complete, both[:, 0] / both[:, 1], 1.0)
    return np.asarray(np.clip(weight, 1 / MAX_CLASS_WEIGHT, MAX_CLASS_WEIGHT))
