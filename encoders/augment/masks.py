"""Which tokens a masked method hides: a pure function of (seed, position, view), like every other draw.

Source: MAE, section 3 (He et al. 2021, arXiv:2111.06377): a uniform random subset without replacement.

Shapes: B samples, N tokens, K kept, M masked; N = K + M.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field
from torch import Tensor

from encoders.runtime.arrays import IntArray
from encoders.runtime.config import Config
from encoders.runtime.random import Purpose, uniform


class MaskSpec(Config):
    """How many tokens of each view a method masks."""

    tokens: int = Field(gt=0, description="patch tokens of a view; prefix tokens (class, registers) are never masked")
    ratio: float = Field(0.75, ge=0, lt=1, description="share of the tokens hidden")


class Masks(NamedTuple):
    """keep: (B, K) int64, masked: (B, M) int64, indices of patch tokens, each row ascending."""

    keep: Tensor
    masked: Tensor


def draw_mask(seed: int, position: ArrayLike, n_tokens: int, ratio: float, view: int = 0) -> tuple[IntArray, IntArray]:
    """Indices kept (B, K) and hidden (B, M) for each position; M = N - floor(N (1 - ratio)), as in MAE."""
    order = np.argsort(uniform(seed, Purpose.MASK, position, view, n_tokens), axis=1, kind="stable")  # (B, N)
    kept = int(n_tokens * (1 - ratio) + 1e-9)  # 1e-9: 100 * (1 - 0.9) is 9.999999999999998
    return np.sort(order[:, :kept], axis=1), np.sort(order[:, kept:], axis=1)
