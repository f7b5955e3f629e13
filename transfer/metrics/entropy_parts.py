"""The uncertainty of several predictions of one image, divided into two parts.

The entropy of the mean probability is the mean entropy of the predictions, which more training data do not remove (aleatoric), and the
mutual information of prediction and network: how much the predictions differ (epistemic).

Source: Depeweg et al. 2018, arXiv:1710.07283; Smith and Gal 2018, arXiv:1803.08533.

Shapes: T predictions, B images, C labels or classes.
"""

import math
from typing import NamedTuple

import numpy as np

from encoders.runtime.arrays import Array, FloatArray


class EntropyParts(NamedTuple):
    """Each (B,), as a share of the largest entropy: `total` is the sum of the others. Of several labels, means over them."""

    total: FloatArray
    expected: FloatArray
    mutual: FloatArray


def relative_entropy(probability: Array, kind: str) -> FloatArray:
    """(...) entropy of the probabilities (..., C) divided by its largest value, so that 1 is complete uncertainty.

    Of several labels, the mean of their entropies."""
    p = np.asarray(probability, dtype=np.float64)
    parts = [p] if kind == "multiclass" else [p, 1 - p]
    nats = sum((-part * np.log(np.maximum(part, np.finfo(np.float64).tiny)) for part in parts), np.zeros_like(p))
    largest = math.log(p.shape[-1] if kind == "multiclass" else 2)
    return np.asarray(nats.sum(axis=-1) / largest if kind == "multiclass" else nats.mean(axis=-1) / largest)


def divide_entropy(samples: Array, kind: str) -> EntropyParts:
    """The parts of the uncertainty of predictions (T, B, C)."""
    total = relative_entropy(np.mean(samples, axis=0), kind)
    expected = np.asarray(relative_entropy(samples, kind).mean(axis=0))
    return EntropyParts(total, expected, np.maximum(total - expected, 0.0))
