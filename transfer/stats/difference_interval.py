"""The interval of a difference of two areas (or of another metric given by its components) on the same rows."""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from transfer.stats.delong import area_variance
from transfer.stats.interval import Ends
from transfer.stats.mover_interval import mover_interval
from transfer.stats.placement_components import AreaComponents
from transfer.stats.variance_model import VarianceModel, count_fewest, fit_variance, paired_degrees_of_freedom


def paired_interval(one: AreaComponents, other: AreaComponents) -> Ends:
    """The score interval of `one.area - other.area` as a function of its level; NaN for fewer than two patients in a class.

    The components of both refer to the same patients. All differences d with |difference - d| <= t * sd(d): sd(d)^2 is the variance of the
    difference when both areas have moved equally far from their estimates, in opposite directions, until they differ by d, with the
    variance model of each area and the correlation of their components. Like MOVER it is asymmetric near 1, but it is evaluated at the
    hypothesis, so that the p-value is that of a score test. Two encoders that make the same errors have the interval (0, 0)."""
    fewest = count_fewest(one)
    if fewest < 2 or np.isnan(one.positive + one.negative + other.positive + other.negative).any():
        return lambda level: (np.nan, np.nan)
    apart, value = one - other, one.area - other.area
    a, b = fit_variance(one), fit_variance(other)
    no_variance = not (apart.positive.any() or apart.negative.any())
    if value == 0.0 and one.area not in (0.0, 1.0) and no_variance:
        return lambda level: (0.0, 0.0)
    correlation = _correlate(a, b, area_variance(apart)[0])
    # No patient differs from the others (two areas without an error, or one beside constant scores): nothing is known of the correlation.
    if no_variance or _variance_at(value, one.area, other.area, a, b, correlation) <= 0.0:
        return mover_interval(one, other, 0.0)
    return ScoreInterval(one.area, other.area, a, b, correlation, paired_degrees_of_freedom(apart))


@dataclass(frozen=True)
class ScoreInterval:
    """The score interval of `area - other`, and the p-value of its test of zero. a, b: variance models; df: degrees of freedom."""

    area: float
    other: float
    a: VarianceModel
    b: VarianceModel
    correlation: float
    df: float

    def __call__(self, level: float, /) -> tuple[float, float]:
        from scipy.optimize import brentq
        from scipy.special import stdtrit

        t, value = float(stdtrit(self.df, (1 + level) / 2)), self.area - self.other

        def excess(d: float) -> float:
            return (value - d) ** 2 - t**2 * self.variance_at(d)

        low, high = (end if excess(end) <= 0.0 else float(brentq(excess, value, end)) for end in (-1.0, 1.0))
        return low, high

    def p_value(self) -> float:
        """The two-sided p-value of no difference."""
        from scipy.special import stdtr

        value, variance = self.area - self.other, self.variance_at(0.0)
        if value == 0.0:
            return 1.0
        return 2 * float(stdtr(self.df, -abs(value) / sqrt(variance))) if variance > 0 else 0.0

    def variance_at(self, d: float) -> float:
        """The variance of the difference if the true one is `d`."""
        return _variance_at(d, self.area, self.other, self.a, self.b, self.correlation)


def _correlate(a: VarianceModel, b: VarianceModel, variance_of_difference: float) -> float:
    """The correlation of two estimated areas; 0 when one has no variance."""
    size = sqrt(a.variance * b.variance)
    return min(max((a.variance + b.variance - variance_of_difference) / (2 * size), -1.0), 1.0) if size > 0 else 0.0


def _variance_at(d: float, area: float, other: float, a: VarianceModel, b: VarianceModel, correlation: float) -> float:
    """The variance of the difference if the true one is `d`: both areas move equally far; what one cannot move, because it is at 0 or 1,
    the other moves."""
    step = (area - other - d) / 2
    x, z = area - step, other + step
    kept = min(max(x, 0.0), 1.0)
    z += kept - x
    bounded = min(max(z, 0.0), 1.0)
    x = min(max(kept + bounded - z, 0.0), 1.0)
    sd_x, sd_z = sqrt(a.scale * x * (1 - x)), sqrt(b.scale * bounded * (1 - bounded))
    return sd_x**2 + sd_z**2 - 2 * correlation * sd_x * sd_z
