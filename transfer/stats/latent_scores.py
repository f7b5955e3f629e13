"""Scores on a latent normal scale, on which the positive rows of one encoder can be moved to give another area.

A score is replaced by the normal quantile of its rank, which leaves every area as it is. Adding `shift` to the positive rows then raises
the area without changing the order within a class. What two encoders share, and what the images of a patient share, is an offset on this
scale and stays. Rows of equal score (votes of k-NN) share an interval of the scale; a moved row that falls into it gets the score of that
interval, so that moved scores have ties as well.

Shapes: N rows.
"""

from dataclasses import dataclass

import numpy as np

from encoders.runtime.arrays import Array, FloatArray


@dataclass(frozen=True)
class LatentScores:
    """value: (N,) latent values, different for rows of equal score.  lower, upper, level: the intervals of scores that several rows have,
    and their latent values."""

    value: FloatArray
    lower: FloatArray
    upper: FloatArray
    level: FloatArray

    def shifted(self, shift: float, rows: Array) -> FloatArray:
        """(N,) scores after `shift` was added to `rows` (a mask)."""
        moved = np.where(rows, self.value + shift, self.value)
        if not len(self.level):
            return moved
        at = np.clip(np.searchsorted(self.lower, moved, side="right") - 1, 0, None)
        inside = (moved >= self.lower[at]) & (moved < self.upper[at])
        return np.where(inside, self.level[at], moved)


def latent_scores(s: Array, rng: np.random.Generator) -> LatentScores:
    """The scores (N,) on the latent scale. Rows of equal score are spread over their interval in a random order."""
    from scipy.special import ndtri

    n, tie_break = len(s), rng.random(len(s))
    rank = np.empty(n)
    rank[np.lexsort((tie_break, s))] = np.arange(n) + 0.5
    _, count = np.unique(s, return_counts=True)
    last = np.cumsum(count)
    first, tied = last - count, count > 1
    lower, upper, level = (ndtri(edge[tied] / n) for edge in (first, last, (first + last) / 2))
    return LatentScores(ndtri(rank / n), lower, upper, level)
