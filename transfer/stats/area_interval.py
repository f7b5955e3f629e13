"""The interval of one area (or of another metric that is given by its components)."""

import numpy as np

from transfer.stats.interval import Ends, perfect_lower_bound
from transfer.stats.placement_components import AreaComponents
from transfer.stats.variance_model import count_fewest, fit_variance


def area_interval(p: AreaComponents) -> Ends:
    """The score interval of `p.area` as a function of its level; NaN for fewer than two patients in a class.

    All areas x with |p.area - x| <= t * sd(x), where sd(x)^2 = scale * x (1 - x) is the variance model and t Student's quantile. That is
    Wilson's interval with 1 / scale patients. An area of exactly 1 has the lower end of zero errors among the patients of the smaller
    class.

    Source: Newcombe 2006 (Stat Med 25, 559), with the patient as the unit and its variance estimated by Obuchowski 1997."""
    from scipy.special import stdtrit

    fewest = count_fewest(p)
    model = fit_variance(p) if fewest > 1 else None
    if model is None or np.isnan(model.scale):
        return lambda level: (np.nan, np.nan)
    if p.area in (0.0, 1.0):  # no error was observed, or no success
        return lambda level: (perfect_lower_bound(fewest, level), 1.0) if p.area else (0.0, 1 - perfect_lower_bound(fewest, level))

    def at(level: float) -> tuple[float, float]:
        z = float(stdtrit(model.df, (1 + level) / 2)) ** 2 * model.scale
        middle, half = (p.area + z / 2) / (1 + z), np.sqrt(z * p.area * (1 - p.area) + z**2 / 4) / (1 + z)
        return float(middle - half), float(middle + half)

    return at
