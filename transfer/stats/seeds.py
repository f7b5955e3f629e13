"""Several pretraining seeds of one recipe: the interval includes the variation over seeds as well as that over patients.

The two errors are independent, so the squares of their half widths add: that of the patients from clustered DeLong on the mean over seeds,
that of the seeds from Student's t on their standard deviation. Without the second part, a verdict is about the tested checkpoints only.
"""

from collections.abc import Sequence

import numpy as np

from transfer.stats.auroc_intervals import ScoredFolds, few_patients_note_over_folds, pool_components
from transfer.stats.delong import area_variance
from transfer.stats.interval import Interval
from transfer.stats.mover_interval import p_value_from_interval
from transfer.stats.verdict import Difference, build_area_difference, undefined_difference


def widen_by_seeds(interval: Interval, values: Sequence[float]) -> Interval:
    """The interval of a mean over seeds, widened by the variation of the `values` of the seeds."""
    extra, v = _half_width(values, interval.level), interval.value
    low, high = v - np.hypot(v - interval.low, extra), v + np.hypot(interval.high - v, extra)
    method = f"{interval.method}; and {len(values)} pretraining seeds"
    return Interval(v, float(max(low, 0.0)), float(min(high, 1.0)), method, interval.level, interval.note)


def seeds_difference(seeds: Sequence[ScoredFolds], other: ScoredFolds, level: float = 0.95) -> Difference:
    """The mean AUROC over pretraining seeds minus that of `other` on the same folds and rows, for the recipe and not its checkpoints.

    seeds: for every seed its scored test parts, in the folds of `other`."""
    from scipy.special import stdtrit

    folds = [[scored for seed in seeds for scored in seed[f]] for f in range(len(other))]
    mean, base, method = pool_components(folds), pool_components(other), f"clustered DeLong, paired, t; and {len(seeds)} pretraining seeds"
    alone = [pool_components(seed) for seed in seeds]
    if mean is None or base is None:
        return undefined_difference(method, level, few_patients_note_over_folds(other))
    difference = mean - base
    v, df = area_variance(difference)
    per_seed = [p.area - base.area for p in alone if p is not None]

    def ends(at: float) -> tuple[float, float]:
        half = float(np.hypot(stdtrit(df, (1 + at) / 2) * np.sqrt(v), _half_width(per_seed, at)))
        return difference.area - half, difference.area + half

    note = few_patients_note_over_folds(other)
    return build_area_difference(difference.area, ends(level), p_value_from_interval(ends), method, level, note)


def seed_std(values: Sequence[float]) -> float:
    """Standard deviation over seeds."""
    return float(np.std(values, ddof=1))


def _half_width(values: Sequence[float], level: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(len(values) - 1, (1 + level) / 2) * seed_std(values) / np.sqrt(len(values)))
