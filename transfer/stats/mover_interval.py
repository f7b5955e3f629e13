"""The interval of a difference of two areas from the intervals of the two areas (MOVER).

Source: Zou and Donner 2008 (Stat Med 27, 1693), with the covariance term of Zou 2007 (Psychol Methods 12, 399). Unlike a Wald interval it
is asymmetric when an area is near 1, and has a positive width when one is 1.
"""

import numpy as np

from transfer.stats.area_interval import area_interval
from transfer.stats.delong import AreaComponents
from transfer.stats.interval import Ends


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
    inside, outside = 1.0, 0.0  # levels
    if np.isnan(interval(0.95)[0]):
        return float("nan")
    for _ in range(40):
        middle = (inside + outside) / 2
        low, high = interval(middle)
        inside, outside = (middle, outside) if low <= 0 <= high else (inside, middle)
    return 1 - outside
