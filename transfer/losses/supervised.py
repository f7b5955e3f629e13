"""Losses that ignore unknown labels, and class weights that are removed again from the scores.

Shapes: B images, N train rows, C labels or classes.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.runtime.arrays import Array, FloatArray

MAX_CLASS_WEIGHT = 50.0  # a class a thousand times rarer than another must not let one image dominate a step


def class_weights(y: Array, kind: str, balanced: bool) -> FloatArray:
    """(C,) multi-class: weight of each class, with mean 1 over the rows. Otherwise: weight of positives against negatives of a label.

    y: (N, C).  Weights are at most 50 and at least 1/50; a class without rows has weight 1."""
    known = ~np.isnan(y)
    hits = np.nansum(y, axis=0, dtype=np.float64)
    if not balanced:
        return np.ones(y.shape[1])
    if kind == "multiclass":
        present = hits > 0
        weight = np.where(present, hits.sum() / (np.maximum(hits, 1) * max(int(present.sum()), 1)), 1.0)
    else:
        misses = known.sum(axis=0) - hits
        weight = np.where((hits > 0) & (misses > 0), misses / np.maximum(hits, 1), 1.0)
    return np.clip(weight, 1 / MAX_CLASS_WEIGHT, MAX_CLASS_WEIGHT)


def split_known(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The logits (B, C) in at least single precision, the labels with 0 where they are unknown, and which are known."""
    known = ~torch.isnan(y)
    return logits if logits.dtype == torch.float64 else logits.float(), torch.nan_to_num(y), known


def mean_known(loss: Tensor, known: Tensor) -> Tensor:
    """The mean of the known losses; 0, with a gradient of 0, when none is known."""
    return (loss * known).sum() / known.sum().clamp(min=1)


def supervised_loss(logits: Tensor, y: Tensor, weight: Tensor, kind: str) -> Tensor:
    """Mean loss (nats) over known labels; 0, with a gradient of 0, when none is known. logits, y: (B, C).  weight: (C,), `class_weights`.

    Cross-entropy over the classes of a multi-class task, otherwise binary cross-entropy of every label."""
    logits = logits.float()
    known = ~torch.isnan(y)
    y = torch.nan_to_num(y)
    if kind == "multiclass":
        rows = known.all(dim=1)
        cost = weight[y.argmax(dim=1)] * rows  # (B,)
        loss = F.cross_entropy(logits, y.argmax(dim=1), reduction="none")  # (B,)
        return (loss * cost).sum() / cost.sum().clamp(min=torch.finfo(torch.float32).tiny)
    loss = F.binary_cross_entropy_with_logits(logits, y, pos_weight=weight, reduction="none")  # (B, C)
    return (loss * known).sum() / known.sum().clamp(min=1)


def logit_shift(weight: Array) -> FloatArray:
    """(C,) what the class weights add to the optimal logits; after subtracting it, scores are probabilities at the train prevalence.

    A positive of weight w multiplies the odds by w; so does a class of weight w among classes."""
    shift: FloatArray = np.log(weight)
    return shift
