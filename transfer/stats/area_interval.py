"""The interval of one area (or of another metric that is given by its components)."""

from transfer.stats.delong import AreaComponents, logit_interval
from transfer.stats.interval import Ends


def area_interval(p: AreaComponents) -> Ends:
    """The interval of `p.area` as a function of its level; NaN where it is not defined."""
    return logit_interval(p)
