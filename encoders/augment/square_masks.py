"""The masks of SimMIM: random squares of a fixed grid over the view, given in the patches of a ViT.

Source: Xie et al. 2022 (arXiv:2111.09886), section 3.2: squares of 32 pixels, 60 % of them hidden, whatever the patch of the network;
microsoft/SimMIM, data/data_simmim.py for the rounding.

Shapes: B images of a micro-batch, S squares of a view, N tokens of a view.
"""

import math

import numpy as np
import torch
from pydantic import Field

from encoders.augment.masks import MaskSpec, TokenMask
from encoders.runtime.arrays import BoolArray, IntArray
from encoders.runtime.random import Purpose, uniform


class RandomSquares(MaskSpec):
    """A uniform random subset of the squares of every view; equally many in each image."""

    rows: int = Field(gt=0, description="rows of patches in a view, a multiple of `side`")
    columns: int = Field(gt=0, description="columns of patches in a view, a multiple of `side`")
    side: int = Field(gt=0, description="side of a square, patches")
    ratio: float = Field(0.6, gt=0, lt=1, description="share of the squares hidden, rounded up to whole squares")

    def draw(self, seed: int, positions: IntArray, view: int) -> TokenMask:
        return TokenMask(torch.from_numpy(draw_squares(self, seed, positions, view)))


def draw_squares(spec: RandomSquares, seed: int, positions: IntArray, view: int) -> BoolArray:
    """(B, N) true for the hidden patches, row by row."""
    rows, columns = spec.rows // spec.side, spec.columns // spec.side
    order = np.argsort(uniform(seed, Purpose.MASK, positions, view, rows * columns), axis=1, kind="stable")  # (B, S)
    hidden = np.zeros(order.shape, dtype=bool)
    n_hidden = math.ceil(rows * columns * spec.ratio - 1e-9)  # 1e-9: 25 * 0.6 may be 15.000000000000002
    np.put_along_axis(hidden, order[:, :n_hidden], True, axis=1)
    squares = hidden.reshape(-1, rows, columns)
    return squares.repeat(spec.side, axis=1).repeat(spec.side, axis=2).reshape(len(squares), spec.rows * spec.columns)
