"""The peak learning rate of a batch. A file of its own: who only shows it needs no torch."""

import math

REFERENCE_BATCH = 256  # images per step that published learning rates refer to (Goyal et al. 2017, arXiv:1706.02677)


def scale_lr(lr: float, rule: str, batch: int) -> float:
    """`lr` for a global batch of `batch` images: lr x B/256 (linear), lr x sqrt(B/256) (sqrt), or lr unchanged (none)."""
    ratio = batch / REFERENCE_BATCH
    return lr * {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[rule]
