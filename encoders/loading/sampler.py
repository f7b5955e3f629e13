"""Which rows of a store each micro-batch of each rank holds: a pure function of (seed, turn).

Shapes: N rows in use, B images of a global batch, b of a micro-batch of a rank.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from encoders.runtime.arrays import IntArray
from encoders.runtime.errors import InputError
from encoders.runtime.random import Purpose, permutation, random_bits


class BatchOrder:
    """Epochs of floor(N / B) steps, each a new permutation whose rest is dropped; or, with weights, draws with replacement."""

    def __init__(
        self, rows: IntArray, batch: int, seed: int, rank: int = 0, world: int = 1, accumulate: int = 1, weights: ArrayLike | None = None
    ):
        if len(rows) < batch:
            raise InputError(f"batch is {batch} but only {len(rows)} images are in use; choose batch <= {len(rows)}")
        if batch < 1 or batch % (world * accumulate):
            raise InputError(
                f"batch is {batch}, which does not divide into {world} process(es) x {accumulate} micro-batch(es); "
                f"choose a multiple of {world * accumulate}"
            )
        self.rows, self.batch, self.seed, self.rank = rows, batch, seed, rank
        self.accumulate, self.each = accumulate, batch // (world * accumulate)
        self.steps_per_epoch = len(rows) // batch
        self._cumulative = None if weights is None else cumulative_weights(weights, len(rows))
        self._kept: tuple[int, IntArray] | None = None  # the last epoch's permutation

    def of(self, turn: int) -> tuple[IntArray, IntArray]:
        """IntArray of the store (b,) and their positions in the global order (b,), for micro-batch `turn` of the run."""
        step, micro = divmod(turn, self.accumulate)
        first = (self.rank * self.accumulate + micro) * self.each
        place = np.arange(first, first + self.each)
        positions = step * self.batch + place
        if self._cumulative is not None:
            return self.rows[draw_weighted_rows(self._cumulative, self.seed, positions)], positions
        epoch, within = divmod(step, self.steps_per_epoch)
        return self.rows[self._permutation(epoch)[within * self.batch + place]], positions

    def _permutation(self, epoch: int) -> IntArray:
        if self._kept is None or self._kept[0] != epoch:
            self._kept = epoch, permutation(self.seed, Purpose.ORDER, epoch, len(self.rows))
        return self._kept[1]


def cumulative_weights(weights: ArrayLike, n: int) -> NDArray[np.float64]:
    """(N,) running sums of the weights, ending in 1. Raises InputError when they are negative, unlike in number, or all zero."""
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (n,) or not np.isfinite(w).all() or (w < 0).any() or not w.sum() > 0:
        raise InputError(f"sampling weights: expected {n} numbers >= 0, not all zero, one for each image in use; got {w.shape}")
    total = np.cumsum(w)
    return total / total[-1]


def draw_weighted_rows(ends: NDArray[np.float64], seed: int, positions: IntArray) -> IntArray:
    """One of the N for each position, in proportion to the weights behind `ends`."""
    words = random_bits(seed, Purpose.ORDER, positions, view=1, n=2).astype(np.float64)
    u = (words[:, 0] + words[:, 1] * 2.0**-32) * 2.0**-32  # more digits than 32 bits: a million rows each get their due
    return np.minimum(np.searchsorted(ends, u, side="right"), np.flatnonzero(np.diff(ends, prepend=0.0))[-1]).astype(np.int64)
