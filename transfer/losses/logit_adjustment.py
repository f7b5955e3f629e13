"""Logit adjustment: the network learns what remains after class frequencies.  Source: Menon et al. 2021, arXiv:2007.07314, eq. 10.

The cross-entropy of logits + tau log(frequency). The scores are the logits without it: those of classes of equal frequency, which minimise
the balanced error. Of a label, the log of its odds takes the place of the log of a frequency.

Shapes: B images, C labels or classes.
"""

import numpy as np
import torch
from torch import Tensor

from encoders.runtime.arrays import FloatArray
from transfer.losses.class_counts import ClassCounts
from transfer.losses.supervised import supervised_loss


def log_frequency(counts: ClassCounts, kind: str) -> FloatArray:
    """(C,) log of the share of each class, or log odds of each label; 0 for a label without both.

    An absent class counts as half an image."""
    if kind == "multiclass":
        n = np.maximum(counts.positive, 0.5)
        return np.asarray(np.log(n / n.sum()))
    safe = np.where(counts.is_complete, counts.positive / np.maximum(counts.negative, 1), 1.0)
    return np.asarray(np.log(safe))


def logit_adjusted_loss(logits: Tensor, y: Tensor, kind: str, adjustment: Tensor) -> Tensor:
    """The mean over known labels (nats). logits, y: (B, C), NaN = unknown.  adjustment: (C,) tau times `log_frequency`."""
    return supervised_loss(logits.float() + adjustment, y, torch.ones_like(adjustment), kind)
