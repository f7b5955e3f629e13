"""The variance of an area as a function of the true area, from few errors.

An interval needs the variance at its own ends, not at the estimate: close to 1, the estimated variance is small exactly when the estimate
is too high. The variance is therefore modelled as `scale * x (1 - x)` for a true area x (Wilson's idea for a proportion, which Newcombe
2006, Stat Med 25, 559, method 5, uses for the area).

The scale comes from the components of the patients. With few errors the components say little: at an area of .98 one patient in twenty
carries nearly all of the variance. The scale is therefore a weighted mean of the observed one and of that of Newcombe's formula with
patients as the units. The weight of the observed one is the number of patients that carry it, that of the formula is PRIOR_PATIENTS.
"""

from dataclasses import dataclass

import numpy as np

from transfer.stats.delong import area_variance
from transfer.stats.placement_components import AreaComponents

PRIOR_PATIENTS = 2.0  # weight of Newcombe's formula, in patients; chosen by simulation (tests/perf/coverage.py)
EXTRA_DF = 3.0  # degrees of freedom beyond the number of carrying patients; chosen by the same simulation


@dataclass(frozen=True)
class VarianceModel:
    """The variance `scale * x * (1 - x)` of an estimated area at a true area x. variance: the estimated one; df: degrees of freedom."""

    scale: float
    variance: float
    df: float


def fit_variance(p: AreaComponents) -> VarianceModel:
    """The variance model of an area. NaN when the variance is not known (a class with a single patient)."""
    variance, _ = area_variance(p)
    carriers = count_carriers(p)
    fewest = min(p.n_positive, p.n_negative)
    away = (p.area * fewest + 0.5) / (fewest + 1)  # not 0 or 1: half an error is added on both sides
    prior = newcombe_variance(away, p.n_positive, p.n_negative)
    mean = (carriers * variance + PRIOR_PATIENTS * prior) / (carriers + PRIOR_PATIENTS)
    return VarianceModel(mean / (away * (1 - away)), variance, carriers + EXTRA_DF)


def count_carriers(p: AreaComponents) -> float:
    """How many patients carry the variance: (sum of c^2)^2 / sum of c^4 over the components c.

    It is the number of patients when all contribute alike, near 1 when one error makes up the variance, and 0 without errors; at most the
    degrees of freedom of Satterthwaite."""
    variance, df = area_variance(p)
    squares = np.concatenate([p.positive, p.negative]) ** 2
    total, fourth = float(squares.sum()), float((squares**2).sum())
    if np.isnan(total):
        return float("nan")
    return min(total**2 / fourth, df) if variance > 0 and fourth > 0 else 0.0


def newcombe_variance(area: float, n_positive: float, n_negative: float) -> float:
    """The variance of an area with independent units (Newcombe 2006, method 5)."""
    half = (n_positive + n_negative) / 2 - 1
    factor = 1 + half * ((1 - area) / (2 - area) + area / (1 + area))
    return area * (1 - area) * factor / (n_positive * n_negative)
