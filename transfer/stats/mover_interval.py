"""The interval of a difference of two areas from the intervals of the two areas (MOVER).

Source: Zou and Donner 2008 (Stat Med 27, 1693), with the covariance term of Zou 2007 (Psychol Methods 12, 399). Unlike a Wald interval it
is asymmetric when an area is near 1, and has a positive width when one is 1.
"""

import numpy as np

from transfer.stats.area_interval import area_interval
from transfer.stats.delong import AreaComponents
from transfer.stats.interval import Ends, TestedEnds

SMALLEST_P = 1e-12  # p-values are found to this absolute error


def mover_interval(one: AreaComponents, other: AreaComponents, correlation: float) -> Ends:
    """The interval of the area `one` minus the area `other`. correlation: of the two estimates."""
    interval_one, interval_other, difference = area_interval(one), area_interval(other), one.area - other.area

    def at(level: float) -> tuple[float, float]:
        (low, high), (other_low, other_high) = interval_one(level), interval_other(level)
        below, above = (one.area - low, other_high - other.area), (high - one.area, other.area - other_low)
        ends = [np.sqrt(max(u**2 + v**2 - 2 * correlation * u * v, 0.0)) for u, v in (below, above)]
        return float(difference - ends[0]), float(difference + ends[1])

    return at


def p_value_from_interval(interval: Ends) -> float:
    """The p-value of an interval: one minus the level at which the interval first contains zero."""
    from scipy.optimize import brentq

    if isinstance(interval, TestedEnds):
        return interval.p_value()
    if np.isnan(interval(0.95)[0]):
        return float("nan")
    side, sign = (0, 1) if interval(0.0)[0] > 0 else (1, -1)  # the end that is between the estimate and zero

    def distance(level: float) -> float:
        return sign * interval(level)[side]

    if distance(0.0) <= 0:
        return 1.0
    if distance(1 - SMALLEST_P) > 0:
        return SMALLEST_P
    return 1 - float(brentq(distance, 0.0, 1 - SMALLEST_P, xtol=SMALLEST_P))
