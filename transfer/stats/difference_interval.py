"""The interval of a difference of two areas (or of another metric given by its components) on the same rows."""

import numpy as np

from transfer.stats.delong import AreaComponents, area_variance
from transfer.stats.interval import Ends
from transfer.stats.mover_interval import mover_interval


def paired_interval(one: AreaComponents, other: AreaComponents) -> Ends:
    """The interval of `one.area - other.area` as a function of its level; NaN where it is not defined. The patients are aligned."""
    from scipy.special import stdtrit

    difference = one - other
    v, df = area_variance(difference)
    if v == 0 and one.area == other.area and one.area not in (0.0, 1.0):  # both make the same errors
        return lambda level: (0.0, 0.0)
    if v == 0:
        return mover_interval(one, other, 0.0)

    def at(level: float) -> tuple[float, float]:
        half = float(stdtrit(df, (1 + level) / 2) * np.sqrt(v))
        return difference.area - half, difference.area + half

    return at
