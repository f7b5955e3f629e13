"""For each row of a store, its partners for the second view: images of the same patient or study, or adjacent tiles.

Source: Vu et al. 2021 (arXiv:2102.10663), MedAug: positives from the same patient and study.

Shapes: N rows of the store, R rows in use, B rows of a micro-batch.
"""

import numpy as np
from numpy.typing import ArrayLike

from encoders.runtime.arrays import Array, IntArray
from encoders.runtime.random import Purpose, uniform

ADJACENT_STEPS = 1.5  # steps of the slide's grid: the eight tiles around one, however its coordinates were rounded


class Partners:
    """A range of `members` for each row in use, which contains the row itself; rows that are not in use have an empty range."""

    def __init__(self, n: int, rows: IntArray, members: IntArray, first: IntArray, count: IntArray, own_position: IntArray):
        """n: N.  rows: (R,) in use.  first, count, own_position: (R,) where a row's range begins, its length, the row's position in it."""
        self.members = members
        self.first, self.count, self.own_position = (np.zeros(n, dtype=np.int64) for _ in range(3))  # (N,)
        self.first[rows], self.count[rows], self.own_position[rows] = first, count, own_position
        self.paired_share = float(np.mean(count > 1)) if len(rows) else 0.0  # of the rows in use that have a partner

    def sample(self, rows: IntArray, positions: ArrayLike, seed: int) -> IntArray:
        """(B,) another row of each row's range, all equally likely; the row itself where it has no partner.

        positions: (B,) in the global order."""
        others = np.maximum(self.count[rows] - 1, 1)
        k = np.minimum((uniform(seed, Purpose.PARTNER, positions)[:, 0] * others).astype(np.int64), others - 1)
        k += k >= self.own_position[rows]
        alone = self.count[rows] < 2
        return np.where(alone, rows, self.members[np.where(alone, 0, self.first[rows] + k)])


def same_group_partners(groups: Array, rows: IntArray) -> Partners:
    """Rows in use of the same group.  groups: (N,) names; a row whose group has no name ("") has no partner."""
    names = groups[rows].astype(str)
    alone = names == ""
    _, code = np.unique(names, return_inverse=True)
    code[alone] = code.max(initial=0) + 1 + np.arange(alone.sum())
    order = np.argsort(code, kind="stable")
    counts = np.bincount(code)
    first = (np.cumsum(counts) - counts)[code]  # (R,)
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    return Partners(len(groups), rows, rows[order], first, counts[code], position - first)


def adjacent_tile_partners(slides: Array, x: Array, y: Array, rows: IntArray) -> Partners:
    """Rows in use on the same slide whose tiles touch, at a side or a corner.  slides, x, y: (N,) a tile's slide and corner."""
    ranges: list[list[int]] = [[i] for i in range(len(rows))]  # indices of `rows`
    names = slides[rows].astype(str)
    for name in np.unique(names[names != ""]):
        here = np.flatnonzero(names == name)
        for i, near in zip(here, _adjacent_tiles(x[rows[here]], y[rows[here]]), strict=True):
            ranges[i] = here[near].tolist()
    count = np.array([len(members) for members in ranges], dtype=np.int64)
    own_position = np.array([members.index(i) for i, members in enumerate(ranges)], dtype=np.int64)
    members = rows[np.concatenate([np.asarray(members, dtype=np.int64) for members in ranges])]
    return Partners(len(slides), rows, members, np.cumsum(count) - count, count, own_position)


def _adjacent_tiles(x: Array, y: Array) -> list[list[int]]:
    """For each tile of a slide, itself and the tiles that touch it, in order."""
    from scipy.spatial import KDTree

    tree = KDTree(np.stack([x / _grid_step(x), y / _grid_step(y)], axis=1))
    return [sorted(near) for near in tree.query_ball_point(tree.data, ADJACENT_STEPS, p=np.inf)]


def _grid_step(values: Array) -> float:
    """The usual distance of adjacent lines of the grid: the median, because a slide may be tiled in several parts."""
    gaps = np.diff(np.unique(values))
    return float(np.median(gaps)) if len(gaps) else 1.0
