"""Label-distribution-aware margins with deferred re-weighting.  Source: Cao et al. 2019, arXiv:1906.07413, eq. 10 to 13 and algorithm 1.

The logit of the true class is reduced by a margin that is proportional to n^(-1/4), n being the images of the class; late in training,
classes have effective-number weights. Of a label, positives and negatives are two classes. Departure: the head is an ordinary linear layer
on features that are not normalised, so that the head that is kept is one; `scale` is therefore 1 and not 30.

Shapes: K classes, B images, C labels or classes.
"""

import numpy as np
import torch
from torch import Tensor

from encoders.runtime.arrays import Array, FloatArray
from transfer.losses.class_counts import ClassCounts
from transfer.losses.supervised import supervised_loss


def class_margins(count: Array, max_margin: float) -> FloatArray:
    """(K,) margins, of which that of the rarest class is `max_margin`. A class without images counts as one image."""
    root = np.maximum(np.asarray(count, dtype=np.float64), 1.0) ** -0.25
    return np.asarray(max_margin * root / root.max())


def label_margins(counts: ClassCounts, kind: str, max_margin: float) -> tuple[FloatArray, FloatArray]:
    """(C,) margins of a class or of the positives of a label, and (C,) of its negatives, zeros for classes."""
    if kind == "multiclass":
        return class_margins(counts.positive, max_margin), np.zeros(len(counts.positive))
    both = np.stack([class_margins(pair, max_margin) for pair in np.stack([counts.positive, counts.negative], axis=1)])
    return both[:, 0], both[:, 1]


def ldam_loss(logits: Tensor, y: Tensor, kind: str, positive: Tensor, negative: Tensor, scale: float, weight: Tensor) -> Tensor:
    """The mean over known labels (nats). logits, y: (B, C), NaN = unknown.  positive, negative: (C,) margins.  weight: (C,)."""
    hit = torch.nan_to_num(y)
    return supervised_loss(scale * (logits.float() - positive * hit + negative * (1 - hit)), y, weight, kind)
