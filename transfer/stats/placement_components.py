"""Placement values of test rows, and what each patient contributes to the error of an area that is their mean.

The placement value of a positive row is the share of the negative rows that score below it; that of a negative row is the share of the
positive rows that score above it. Ties count half, so high is good for both. The mean over the positive rows, like the mean over the
negative rows, is the area. Placement values of several scorings of the same rows may be averaged: their mean is the mean of the areas, and
the components of that mean follow from it in the same way, because the kernel of the area is averaged pair by pair.

Source: DeLong 1988, Biometrics 44 (V10 and V01 are the placement values of the positive and of the negative rows); Obuchowski 1997,
Biometrics 53, eq. 4-7, for the sums within patients.

Shapes: N rows, E scorings (episodes), G patients, C labels.
"""

from dataclasses import dataclass, replace

import numpy as np

from encoders.runtime.arrays import Array, BoolArray, FloatArray
from transfer.stats.patients import count_codes


@dataclass(frozen=True)
class AreaComponents:
    """The area of one label and what the positive and the negative rows of each patient contribute to its error, (G,) each.

    The sums of squares of `positive` and `negative` are the two terms of the variance. n_positive, n_negative: patients with such rows."""

    area: float
    positive: Array
    negative: Array
    n_positive: int
    n_negative: int
    n: int

    def __sub__(self, other: "AreaComponents") -> "AreaComponents":
        """The components of the difference of two areas on the same rows."""
        return AreaComponents(
            self.area - other.area, self.positive - other.positive, self.negative - other.negative, self.n_positive, self.n_negative, self.n
        )


def has_one_class(y: Array) -> bool:
    """Whether the known values of one label (N,) are all positive or all negative, or there are none."""
    positive = y[~np.isnan(y)] > 0.5
    return bool(positive.all() or not positive.any())


def placement_values(positive: BoolArray, s: Array) -> FloatArray:
    """The placement value of every row, in the shape of `s`: (N,), or (E, N) for several scorings of the same rows.

    positive: (N,), with at least one row of each class.  The mean over the positive rows is the area."""
    order = np.argsort(s, axis=-1)  # (..., N), ascending
    score, negative = np.take_along_axis(s, order, axis=-1), ~positive[order]
    # From here on, counts per sorted position; rows of equal score share those of their group.
    through = np.cumsum(negative, axis=-1, dtype=np.int32)  # negatives up to and including this position
    last = np.ones(score.shape, dtype=bool)  # of its group of equal scores
    np.not_equal(score[..., 1:], score[..., :-1], out=last[..., :-1])
    if last.all():
        twice_below, twice_rank = 2 * through - negative, 2 * np.arange(score.shape[-1], dtype=np.int32) + 1
    else:
        first_at, last_at = _ends_of_groups(last)
        before = np.take_along_axis(through - negative, first_at, axis=-1)
        twice_below = before + np.take_along_axis(through, last_at, axis=-1)  # negatives below, those of equal score half
        twice_rank = first_at + last_at + 1  # the same over all rows
    n, p = int((~positive).sum()), int(positive.sum())
    value = np.where(negative, 1 - (twice_rank - twice_below) / (2 * p), twice_below / (2 * n))
    out: FloatArray = np.empty(s.shape)
    np.put_along_axis(out, order, value, axis=-1)
    return out


def _ends_of_groups(last: BoolArray) -> tuple[Array, Array]:
    """For every sorted position, the first and the last position of its group. last: whether a position ends its group."""
    at = np.broadcast_to(np.arange(last.shape[-1], dtype=np.int32), last.shape)
    first = np.concatenate([np.ones((*last.shape[:-1], 1), dtype=bool), last[..., :-1]], axis=-1)
    start = np.maximum.accumulate(np.where(first, at, 0), axis=-1)
    end = np.minimum.accumulate(np.where(last, at, last.shape[-1])[..., ::-1], axis=-1)[..., ::-1]
    return start, end


def placement_components(y: Array, placement: Array, code: Array, n: int) -> AreaComponents | None:
    """The components of the area of one label whose rows have these placement values; None when it has a single class.

    y, placement: (N,); rows with unknown y are ignored.  code: (N,) patients as integers below n.  With the `placement_values` of one
    scoring, the result is that of `area_components`; with the mean over episodes, it is that of the mean area."""
    if has_one_class(y):
        return None
    known = ~np.isnan(y)
    positive, value, code = y[known] > 0.5, np.asarray(placement[known], dtype=np.float64), code[known]
    area = float(value[positive].mean())
    sides = []
    for rows in (positive, ~positive):
        sides.append(sum_by_patient((value[rows] - area) / rows.sum(), code[rows], n))
    return AreaComponents(area, sides[0][0], sides[1][0], sides[0][1], sides[1][1], count_codes(code, n))


def sum_by_patient(share: Array, code: Array, n: int) -> tuple[FloatArray, int]:
    """The contributions of the rows of one class, summed by patient (n,), and the number of patients.

    share: (rows,) contributions.  code: (rows,) patients below n.  The sums have the small-sample factor of their number, so that their
    sum of squares is the variance. That of a class with a single patient is not known: the patient's contribution is NaN."""
    per_patient = np.bincount(code, minlength=n) > 0
    patients = int(per_patient.sum())
    if patients == 1:
        return np.where(per_patient, np.nan, 0.0), 1
    return np.sqrt(patients / (patients - 1)) * np.bincount(code, weights=share, minlength=n), patients


def fill_lone_patients(p: AreaComponents, whole: float, folds: int) -> AreaComponents:
    """The components of one of several folds, where the only patient of a class contributes the deviation of the fold from the mean.

    whole: the mean area over the `folds` folds.  A fold with one patient of a class has no variance of its own; that of its area is seen
    between the folds."""
    deviation = (p.area - whole) * np.sqrt(folds / (folds - 1)) if folds > 1 else np.nan
    sides = [np.where(np.isnan(side), deviation, side) for side in (p.positive, p.negative)]
    return replace(p, positive=sides[0], negative=sides[1])


def measure_placements(y: Array, placement: Array, code: Array, n: int) -> list[AreaComponents | None]:
    """The components of every label from its placement values; None for a label with a single class. y, placement: (N, C)."""
    return [placement_components(y[:, c], placement[:, c], code, n) for c in range(y.shape[1])]
