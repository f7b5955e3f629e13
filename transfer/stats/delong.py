"""Interval of an AUROC and of a difference of AUROCs when a patient has several images.

The variance is that of structural components summed within patients (Obuchowski 1997, Biometrics 53, eq. 4-7); with one image a patient
it is DeLong's (1988). The interval of one area is made on the logit scale with quantiles of Student's t, because plain Wald and percentile
intervals cover too little at a hundred patients. The degrees of freedom are Satterthwaite's for the two classes' shares of the variance.

Shapes: N rows, P positives, M negatives, G patients, C labels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfer.metrics import macro
from transfer.stats.common import Difference, Interval, codes, columns, too_few, verdict

Array = NDArray[Any]


@dataclass(frozen=True)
class Parts:
    """One label: its area, and what each patient's positive and negative rows add to the area's error, (G,) each, with the number of
    patients that have such rows. Sums of squares of the parts are the two terms of the variance."""

    area: float
    positive: Array
    negative: Array
    n_positive: int
    n_negative: int
    n: int

    def __sub__(self, other: "Parts") -> "Parts":
        """The same for the difference of two areas on the same rows."""
        return Parts(
            self.area - other.area, self.positive - other.positive, self.negative - other.negative, self.n_positive, self.n_negative, self.n
        )


def components(y: Array, s: Array, code: Array, n: int) -> Parts | None:
    """The parts of one label; None where it has patients of one class only. y, s, code: (N,); n patients in all."""
    known = ~np.isnan(y)
    positive, score, code = y[known] > 0.5, np.asarray(s[known], dtype=np.float64), code[known]
    if positive.all() or not positive.any():
        return None
    high, low = score[positive], score[~positive]
    won = _share_below(low, high)  # (P,) share of the negatives that each positive exceeds, ties half
    lost = 1 - _share_below(high, low)  # (M,) share of the positives that exceed each negative
    area = float(won.mean())
    sides = []
    for deviation, who in ((won - area, code[positive]), (lost - area, code[~positive])):
        with_rows = len(np.unique(who))
        inflate = np.sqrt(with_rows / (with_rows - 1)) if with_rows > 1 else np.nan
        sides.append((inflate * np.bincount(who, weights=deviation, minlength=n) / len(deviation), with_rows))
    return Parts(area, sides[0][0], sides[1][0], sides[0][1], sides[1][1], len(np.unique(code)))


def _share_below(reference: Array, score: Array) -> NDArray[np.float64]:
    """For each score the share of the reference below it, equal ones counting half."""
    ordered = np.sort(reference)
    return (np.searchsorted(ordered, score, "left") + np.searchsorted(ordered, score, "right")) / (2 * len(ordered))


def mean_of(parts: list[Parts]) -> Parts:
    """The parts of the mean area over labels: errors add within a patient, so labels of one patient need not be independent.

    The counts are the fewest of any label, which keeps the quantile on the safe side."""
    return Parts(
        float(np.mean([p.area for p in parts])),
        np.mean([p.positive for p in parts], axis=0),
        np.mean([p.negative for p in parts], axis=0),
        min(p.n_positive for p in parts),
        min(p.n_negative for p in parts),
        max(p.n for p in parts),
    )


def variance(p: Parts) -> tuple[float, float]:
    """Variance of the area, and its degrees of freedom."""
    a, b = float((p.positive**2).sum()), float((p.negative**2).sum())
    # Patients with rows of both classes. Obuchowski's factor n / (n - 1), in place of the two classes' own.
    own = np.sqrt((1 - 1 / p.n_positive) * (1 - 1 / p.n_negative)) if min(p.n_positive, p.n_negative) > 1 else np.nan
    shared = 2 * float((p.positive * p.negative).sum()) * own * p.n / max(p.n - 1, 1)
    total = max(a + b + shared, 0.0)
    if not a + b > 0:
        return total, float(min(p.n_positive, p.n_negative) - 1)
    return total, (a + b) ** 2 / (a**2 / max(p.n_positive - 1, 1) + b**2 / max(p.n_negative - 1, 1))


def auroc_interval(y: Array, s: Array, patient: Array, level: float = 0.95) -> Interval:
    """The AUROC, averaged over the labels that are defined, with its clustered DeLong interval. y, s: (N,) or (N, C)."""
    parts = _parts(y, s, patient)
    note = too_few(y, patient)
    method = "clustered DeLong, logit, t"
    if not parts:
        return Interval(np.nan, np.nan, np.nan, method, level, note)
    whole = mean_of(parts)
    low, high = _logit_interval(whole, level)
    return Interval(whole.area, low, high, method, level, note)


def auroc_intervals(y: Array, s: Array, patient: Array, level: float = 0.95) -> list[Interval]:
    """The same for every label on its own."""
    y, s = columns(y), columns(s)
    return [auroc_interval(y[:, c], s[:, c], patient, level) for c in range(y.shape[1])]


def _logit_interval(p: Parts, level: float) -> tuple[float, float]:
    from scipy.special import expit, logit
    from scipy.stats import t

    fewest = min(p.n_positive, p.n_negative)
    if fewest < 2:
        return np.nan, np.nan
    if p.area in (0.0, 1.0):
        # No error was seen, so no variance: the bound at which n patients without an error have probability (1 - level) / 2.
        bound = ((1 - level) / 2) ** (1 / fewest)
        return (bound, 1.0) if p.area == 1.0 else (0.0, 1 - bound)
    v, df = variance(p)
    half = t.ppf((1 + level) / 2, df) * np.sqrt(v) / (p.area * (1 - p.area))
    return float(expit(logit(p.area) - half)), float(expit(logit(p.area) + half))


def auroc_difference(y: Array, a: Array, b: Array, patient: Array, level: float = 0.95) -> Difference:
    """AUROC of scores `a` minus that of `b` on the same rows, averaged over labels, from the components' differences patient by patient."""
    from scipy.stats import t

    method = "clustered DeLong, paired, t"
    pairs = [x - z for x, z in zip(_parts(y, a, patient), _parts(y, b, patient), strict=True)]
    note = too_few(y, patient)
    if not pairs:
        return Difference(np.nan, np.nan, np.nan, np.nan, "not distinguishable", method, level, note)
    whole = mean_of(pairs)
    v, df = variance(whole)
    if v == 0:  # the same order for every pair, or nothing to tell the two apart by
        return Difference(
            whole.area, whole.area, whole.area, 1.0 if whole.area == 0 else 0.0, verdict(whole.area, whole.area), method, level, note
        )
    half = float(t.ppf((1 + level) / 2, df) * np.sqrt(v))
    p = float(2 * t.sf(abs(whole.area) / np.sqrt(v), df))
    low, high = whole.area - half, whole.area + half
    return Difference(whole.area, low, high, p, verdict(low, high), method, level, note)


def _parts(y: Array, s: Array, patient: Array) -> list[Parts]:
    y, s = columns(y), columns(s)
    code, n = codes(patient)
    every = [components(y[:, c], s[:, c], code, n) for c in range(y.shape[1])]
    return [p for p in every if p is not None]


def macro_area(y: Array, s: Array) -> float:
    """The mean area over defined labels, from the same components (a check on `metrics.auroc`)."""
    return float(macro(np.array([p.area for p in _parts(y, s, np.arange(len(y)))]))[0])
