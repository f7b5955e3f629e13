"""For each row of a store, the rows that may stand in for it in the second view: of the same patient or study, or neighbouring tiles.

Source: Vu et al. 2021 (arXiv:2102.10663), MedAug: positives from the same patient and study.

Shapes: N rows of the store, R rows in use, B rows asked for.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from encoders.runtime.arrays import IntArray
from encoders.runtime.random import Purpose, uniform

ADJACENT_STEPS = 1.5  # steps of the slide's grid: the eight tiles around one, however its coordinates were rounded


class Partners:
    """A range of `members` for each row in use, which holds the row itself at `own`; other rows have none."""

    def __init__(self, n: int, rows: IntArray, members: IntArray, first: IntArray, count: IntArray, own: IntArray):
        """n: N.  rows: (R,) in use.  first, count, own: (R,) where a row's range begins, its length, the row's own place in it."""
        self.members = members
        self.first, self.count, self.own = (np.zeros(n, dtype=np.int64) for _ in range(3))  # (N,)
        self.first[rows], self.count[rows], self.own[rows] = first, count, own
        self.share = float(np.mean(count > 1)) if len(rows) else 0.0  # of the rows in use that have a partner

    def of(self, rows: IntArray, positions: ArrayLike, seed: int) -> IntArray:
        """(B,) another row of each row's range, all equally likely; the row itself where it is alone.  positions: in the global order."""
        others = np.maximum(self.count[rows] - 1, 1)
        k = np.minimum((uniform(seed, Purpose.PARTNER, positions)[:, 0] * others).astype(np.int64), others - 1)
        k += k >= self.own[rows]
        alone = self.count[rows] < 2
        return np.where(alone, rows, self.members[np.where(alone, 0, self.first[rows] + k)])


def same_group_partners(groups: NDArray[Any], rows: IntArray) -> Partners:
    """IntArray in use of the same group.  groups: (N,) names; a row whose group has no name ("") is alone."""
    names = groups[rows].astype(str)
    alone = names == ""
    _, code = np.unique(names, return_inverse=True)
    code[alone] = code.max(initial=0) + 1 + np.arange(alone.sum())
    order = np.argsort(code, kind="stable")
    counts = np.bincount(code)
    first = (np.cumsum(counts) - counts)[code]  # (R,)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return Partners(len(groups), rows, rows[order], first, counts[code], place - first)


def adjacent_tile_partners(slides: NDArray[Any], x: NDArray[Any], y: NDArray[Any], rows: IntArray) -> Partners:
    """IntArray in use on the same slide whose tiles touch, at a side or a corner.  slides, x, y: (N,) a tile's slide and corner."""
    lists: list[list[int]] = [[i] for i in range(len(rows))]  # places in `rows`
    names = slides[rows].astype(str)
    for name in np.unique(names[names != ""]):
        here = np.flatnonzero(names == name)
        for place, near in zip(here, _adjacent_tiles(x[rows[here]], y[rows[here]]), strict=True):
            lists[place] = here[near].tolist()
    count = np.array([len(one) for one in lists], dtype=np.int64)
    own = np.array([one.index(i) for i, one in enumerate(lists)], dtype=np.int64)
    members = rows[np.concatenate([np.asarray(one, dtype=np.int64) for one in lists])]
    return Partners(len(slides), rows, members, np.cumsum(count) - count, count, own)


def _adjacent_tiles(x: NDArray[Any], y: NDArray[Any]) -> list[list[int]]:
    """For each tile of a slide, the tiles that touch it and itself, in order."""
    from scipy.spatial import KDTree

    tree = KDTree(np.stack([x / _grid_step(x), y / _grid_step(y)], axis=1))
    return [sorted(near) for near in tree.query_ball_point(tree.data, ADJACENT_STEPS, p=np.inf)]


def _grid_step(values: NDArray[Any]) -> float:
    """The usual distance of neighbouring lines of the grid: the median, for a slide may be tiled in several pieces."""
    gaps = np.diff(np.unique(values))
    return float(np.median(gaps)) if len(gaps) else 1.0
