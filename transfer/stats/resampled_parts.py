"""Test parts of many test sets that are drawn with replacement from profiles of patients.

All copies of a profile contribute alike to the error of an area, so that the contributions are computed once per profile, with its number
of copies as weight. The test part of a drawn set equals `measure_part` on its rows.

Shapes: N rows, C labels, G profiles, B drawn sets, n patients of a set.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from encoders.runtime.arrays import Array, BoolArray, FloatArray, IntArray
from transfer.stats.parts import TestPart
from transfer.stats.placement_components import AreaComponents
from transfer.stats.weighted_placements import sort_rows, weighted_placements


@dataclass(frozen=True)
class Presence:
    """Which profiles have rows of a class, for one label. positive, negative: (G,)."""

    positive: BoolArray
    negative: BoolArray

    def count(self, copies: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """(B,) patients with positive, with negative and with any rows, in sets with these numbers of copies (B, G)."""
        return copies @ self.positive, copies @ self.negative, copies @ (self.positive | self.negative)


def class_presence(y: Array, profile: IntArray, n: int) -> list[Presence]:
    """Of every label. y: (N, C).  profile: (N,) below n."""
    return [Presence(*(np.bincount(profile, weights=column == value, minlength=n) > 0 for value in (1, 0))) for column in y.T]


def resampled_parts(y: Array, s: Array, profile: IntArray, copies: IntArray, names: IntArray) -> Iterator[TestPart]:
    """Yields the test part of each drawn set. y, s: (N, C).  profile: (N,) below G.  copies: (B, G) how often each profile was drawn.

    names: (n,) increasing, of the patients; one array for all parts that are compared saves time."""
    labels = [_components(y[:, c], s[:, c], profile, copies, p) for c, p in enumerate(class_presence(y, profile, copies.shape[1]))]
    for b, drawn in enumerate(copies):
        which = np.repeat(np.arange(len(drawn)), drawn)  # (n,) the profile of each patient
        yield TestPart(names, tuple(label.components(b, which) for label in labels))


@dataclass(frozen=True)
class _LabelOfSets:
    """area: (B,).  sides: the contributions (B, G) of one copy to the error of each class.  counts: as of `Presence.count`."""

    area: FloatArray
    sides: tuple[FloatArray, FloatArray]
    counts: tuple[IntArray, IntArray, IntArray]

    def components(self, b: int, which: IntArray) -> AreaComponents | None:
        if np.isnan(self.area[b]):
            return None
        positive, negative = (side[b, which] for side in self.sides)
        return AreaComponents(float(self.area[b]), positive, negative, *(int(count[b]) for count in self.counts))


def _components(y: Array, s: Array, profile: IntArray, copies: IntArray, presence: Presence) -> _LabelOfSets:
    rows, weight = sort_rows(y, s), copies.T[profile].astype(np.float64)  # (N, B)
    value, counts = weighted_placements(rows, weight), presence.count(copies)
    by_profile = np.argsort(profile, kind="stable")
    starts = np.searchsorted(profile[by_profile], np.arange(copies.shape[1]))
    sides, area = [], np.full(len(copies), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        for mask, present, patients in zip((rows.positive, rows.negative), (presence.positive, presence.negative), counts[:2], strict=True):
            total = (mask[:, None] * weight).sum(axis=0)
            if mask is rows.positive:
                area = (mask[:, None] * weight * value).sum(axis=0) / total
            share = np.where(mask[:, None], (value - area) / total, 0.0)
            side = np.add.reduceat(share[by_profile], starts, axis=0)  # (G, B)
            factor = np.sqrt(patients / np.maximum(patients - 1, 1))  # the contribution of a single patient is not known
            sides.append(np.where((patients == 1)[:, None] & present, np.nan, (side * factor).T))
    return _LabelOfSets(area, (sides[0], sides[1]), counts)
