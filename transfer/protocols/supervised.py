"""Losses on labels, with unknown ones left out, and class weights that are taken back out of the scores.

Shapes: B images, N train rows, C labels or classes.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

MAX_CLASS_WEIGHT = 50.0  # a class a thousand times rarer than another must not let a single image rule the step


def class_weights(y: NDArray[Any], kind: str, balanced: bool) -> NDArray[np.float64]:
    """(C,) multi-class: weight of each class, mean 1 over the rows. Else: weight of a label's positives against its negatives.

    y: (N, C).  Weights are at most 50 (or 1/50); a class without rows has weight 1."""
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


def supervised_loss(logits: Tensor, y: Tensor, weight: Tensor, kind: str) -> Tensor:
    """Mean loss (nats) over known labels; 0, with a gradient of 0, where none is known. logits, y: (B, C).  weight: (C,), `class_weights`.

    Cross-entropy over the classes, or binary cross-entropy of every label."""
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


def logit_shift(weight: NDArray[Any]) -> NDArray[np.float64]:
    """(C,) what the class weights add to the best logits: subtracted, scores are probabilities at the train prevalence again.

    A positive that weighs w multiplies the odds by w; so does a class that weighs w among classes."""
    return np.log(weight)
