"""Which rows of a store each micro-batch of each rank holds: a pure function of (seed, turn).

Shapes: N rows in use, B images of a global batch, b of a micro-batch of a rank.
"""

import numpy as np
from numpy.typing import ArrayLike

from encoders.runtime.arrays import FloatArray, IntArray
from encoders.runtime.errors import InputError
from encoders.runtime.random import Purpose, permutation, random_bits


class BatchOrder:
    """Epochs of floor(N / B) steps, each a new permutation whose remainder is dropped; or, with weights, draws with replacement."""

    def __init__(
        self, rows: IntArray, batch: int, seed: int, rank: int = 0, world: int = 1, accumulate: int = 1, weights: ArrayLike | None = None
    ):
        """rows: (N,) of the store.  batch: B.  weights: (N,) relative frequency of each row."""
        if len(rows) < batch:
            raise InputError(f"batch is {batch} but only {len(rows)} images are in use; choose batch <= {len(rows)}")
        if batch < 1 or batch % (world * accumulate):
            raise InputError(
                f"batch is {batch}, which does not divide into {world} process(es) x {accumulate} micro-batch(es); "
                f"choose a multiple of {world * accumulate}"
            )
        self.rows, self.batch, self.seed, self.rank = rows, batch, seed, rank
        self.accumulate, self.micro_batch = accumulate, batch // (world * accumulate)
        self.steps_per_epoch = len(rows) // batch
        self._cumulative = None if weights is None else cumulative_weights(weights, len(rows))
        self._last_permutation: tuple[int, IntArray] | None = None  # its epoch and order

    def micro_batch_rows(self, turn: int) -> tuple[IntArray, IntArray]:
        """Rows of the store (b,) and their positions in the global order (b,), for micro-batch `turn` counted from the start of the run."""
        step, micro = divmod(turn, self.accumulate)
        first = (self.rank * self.accumulate + micro) * self.micro_batch
        within_batch = np.arange(first, first + self.micro_batch)
        positions = step * self.batch + within_batch
        if self._cumulative is not None:
            return self.rows[draw_weighted_rows(self._cumulative, self.seed, positions)], positions
        epoch, within_epoch = divmod(step, self.steps_per_epoch)
        return self.rows[self._permutation(epoch)[within_epoch * self.batch + within_batch]], positions

    def _permutation(self, epoch: int) -> IntArray:
        if self._last_permutation is None or self._last_permutation[0] != epoch:
            self._last_permutation = epoch, permutation(self.seed, Purpose.ORDER, epoch, len(self.rows))
        return self._last_permutation[1]


def cumulative_weights(weights: ArrayLike, n: int) -> FloatArray:
    """(N,) running sums of the weights, ending in 1.

    Raises InputError when their number is not N, when one is negative or not finite, or when all are zero."""
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (n,) or not np.isfinite(w).all() or (w < 0).any() or not w.sum() > 0:
        raise InputError(f"sampling weights: expected {n} numbers >= 0, not all zero, one for each image in use; got {w.shape}")
    total = np.cumsum(w)
    ends: FloatArray = total / total[-1]
    return ends


def draw_weighted_rows(ends: FloatArray, seed: int, positions: IntArray) -> IntArray:
    """One of the N rows for each position, in proportion to the weights whose running sums are `ends`."""
    words = random_bits(seed, Purpose.ORDER, positions, view=1, n=2).astype(np.float64)
    u = (words[:, 0] + words[:, 1] * 2.0**-32) * 2.0**-32  # 53 bits, not 32: exact shares for a million rows
    rows: IntArray = np.searchsorted(ends, u, side="right").astype(np.int64)
    last = int(np.flatnonzero(np.diff(ends, prepend=0.0))[-1])  # of weight above 0
    return np.minimum(rows, last)
