"""The variance of an area as a function of the true area, from few errors.

An interval needs the variance at its own ends, not at the estimate: close to 1, the estimated variance is small exactly when the estimate
is too high. The variance is therefore modelled as `scale * x (1 - x)` for a true area x (Wilson's idea for a proportion, which Newcombe
2006, Stat Med 25, 559, method 5, uses for the area).

The scale comes from the components of the patients. With few errors the components say little: at an area of .98 one patient in twenty
carries nearly all of the variance of a class. The variance of each class is therefore a weighted mean of the observed one and of that of
Newcombe's formula with patients as the units. The weight of the observed one is the number of patients that carry it, that of the formula
is PRIOR_PATIENTS.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from encoders.runtime.arrays import Array
from transfer.stats.delong import area_variance
from transfer.stats.placement_components import AreaComponents

PRIOR_PATIENTS = 1.0  # weight of Newcombe's formula, in patients of each class; chosen by simulation (tests/perf/coverage.py)
EXTRA_DF = 2.0  # degrees of freedom of a class beyond the number of carriers; chosen by the same simulation


@dataclass(frozen=True)
class VarianceModel:
    """The variance `scale * x * (1 - x)` of an estimated area at a true area x. variance: the estimated one; df: degrees of freedom."""

    scale: float
    variance: float
    df: float


def fit_variance(p: AreaComponents) -> VarianceModel:
    """The variance model of an area. NaN when the variance is not known (a class with a single patient)."""
    fewest = count_fewest(p)
    away = (p.area * fewest + 0.5) / (fewest + 1)  # not 0 or 1: half an error is added on both sides
    unit = away * (1 - away)
    # Newcombe's formula without its terms of order 1 / (P M), divided between the classes.
    prior = unit * ((1 - away) / (2 - away) + away / (1 + away)) / 2
    mixed, observed = [], 0.0
    for side, patients in _sides(p):
        variance, carriers = float((side**2).sum()), count_carriers(side, patients)
        # A mean over labels: between the patients of the rarest label and those of any, as the labels share some of their patients.
        units = float(np.sqrt(patients * max(patients, int(np.count_nonzero(side)))))
        mixed.append(((carriers * variance + PRIOR_PATIENTS * prior / units) / (carriers + PRIOR_PATIENTS), carriers + EXTRA_DF))
        observed += variance
    variance, _ = area_variance(p)
    shared = variance - observed  # covariance of the classes, from patients with rows of both
    total = sum(v for v, _ in mixed)
    return VarianceModel(float(np.maximum(total + shared, 0.0)) / unit, variance, _satterthwaite(mixed))


def paired_degrees_of_freedom(difference: AreaComponents) -> float:
    """The degrees of freedom of a paired difference, from the number of patients that carry its variance in each class.

    One less than for an area with as many, because the correlation of the two areas is estimated as well."""
    terms = [(float((side**2).sum()), count_carriers(side, patients) + EXTRA_DF - 1) for side, patients in _sides(difference)]
    return _satterthwaite(terms)


def count_carriers(side: Array, patients: int) -> float:
    """How many patients carry the variance of a class: (sum of c^2)^2 / sum of c^4 over its components c.

    It is the number of patients when all contribute alike, near 1 when one error makes up the variance, and 0 without errors; at most the
    number of patients minus one, where a mean over labels has all patients who contribute to any label."""
    squares = side**2
    total, fourth = float(squares.sum()), float((squares**2).sum())
    most = max(patients, int(np.count_nonzero(side))) - 1.0
    return min(total**2 / fourth, most) if fourth > 0 else 0.0 * total  # NaN stays NaN


def count_fewest(p: AreaComponents) -> int:
    """The number of patients in the smaller class; a metric with a single side (a recall) has 0 patients on the other."""
    return min(patients for patients in (p.n_positive, p.n_negative) if patients > 0)


def _sides(p: AreaComponents) -> Iterator[tuple[Array, int]]:
    for side, patients in ((p.positive, p.n_positive), (p.negative, p.n_negative)):
        if patients > 0:
            yield side, patients


def _satterthwaite(terms: list[tuple[float, float]]) -> float:
    """The degrees of freedom of a sum of independent variances. terms: (variance, degrees of freedom)."""
    denominator = sum(v**2 / df for v, df in terms)
    return sum(v for v, _ in terms) ** 2 / denominator if denominator > 0 else min(df for _, df in terms)
