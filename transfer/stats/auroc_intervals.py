"""AUROC of one or several scored test parts with its confidence interval, and differences.

Several test parts are folds and draws of the labels: `[[fold 0 draw 0, fold 0 draw 1], [fold 1 draw 0, ...]]`.

Shapes: N rows, C labels.
"""

import numpy as np

from encoders.runtime.arrays import Array
from transfer.metrics import macro
from transfer.stats.delong import label_components
from transfer.stats.estimate import Estimate, estimate_difference, estimate_gap, estimate_interval
from transfer.stats.factors import Position
from transfer.stats.interval import Interval
from transfer.stats.parts import all_patients, measure_part, pool_parts
from transfer.stats.patients import count_fewest_patients, to_columns
from transfer.stats.permutation import ScoredFolds, permutation_p_value
from transfer.stats.verdict import Difference


def area_estimate(tests: ScoredFolds) -> Estimate:
    """The mean AUROC over test parts."""
    parts = {
        Position(fold, draw): measure_part(y, s, patient) for fold, draws in enumerate(tests) for draw, (y, s, patient) in enumerate(draws)
    }
    return Estimate(parts, count_fewest_over_folds(tests))


def count_fewest_over_folds(tests: ScoredFolds) -> int:
    """The smallest number of patients in a class over all folds, whose draws are counted once; 0 when no label has both classes."""
    y = np.concatenate([to_columns(fold[0][0]) for fold in tests])
    return count_fewest_patients(y, np.concatenate([np.asarray(fold[0][2]).astype(str) for fold in tests])) or 0


def auroc_interval(y: Array, s: Array, patient: Array, level: float = 0.95) -> Interval:
    """The mean AUROC over the labels with both classes, with its interval. y, s: (N,) or (N, C)."""
    return pooled_interval([[(y, s, patient)]], level)


def pooled_interval(tests: ScoredFolds, level: float = 0.95) -> Interval:
    """The mean AUROC over test parts, with one interval. tests: for every fold, its scored draws."""
    return estimate_interval(area_estimate(tests), level)


def auroc_intervals(y: Array, s: Array, patient: Array, level: float = 0.95) -> list[Interval]:
    """The AUROC of every label with its interval."""
    y, s = to_columns(y), to_columns(s)
    return [auroc_interval(y[:, c], s[:, c], patient, level) for c in range(y.shape[1])]


def auroc_difference(y: Array, a: Array, b: Array, patient: Array, level: float = 0.95, margin: float | None = None) -> Difference:
    """AUROC of scores `a` minus that of `b` on the same rows, averaged over labels; interval from per-patient differences."""
    return pooled_difference([[(y, a, patient)]], [[(y, b, patient)]], level, margin)


def pooled_difference(a: ScoredFolds, b: ScoredFolds, level: float = 0.95, margin: float | None = None) -> Difference:
    """The mean AUROC of `a` minus that of `b` over the same folds and draws of the same rows."""
    difference = estimate_difference(area_estimate(a), area_estimate(b), level, margin, lambda: permutation_p_value(a, b))
    assert difference is not None  # both have the same folds and draws
    return difference


def pooled_gap(a: ScoredFolds, b: ScoredFolds, level: float = 0.95) -> Difference:
    """The mean AUROC on test images `a` minus that on other test images `b` of one encoder; patients may have images in both."""
    return estimate_gap(area_estimate(a), area_estimate(b), correlate_areas(a, b), level)


def correlate_areas(a: ScoredFolds, b: ScoredFolds) -> float:
    """Correlation of the errors of the two areas, from patients with images in both; 0 when there are none."""
    patients_of_b = {str(p) for fold in b for _, _, patient in fold for p in patient}
    if not any(str(p) in patients_of_b for fold in a for _, _, patient in fold for p in patient):
        return 0.0
    first, second = area_estimate(a).parts, area_estimate(b).parts
    names = all_patients([*first.values(), *second.values()])
    one, other = pool_parts(first, None, names), pool_parts(second, None, names)
    if one is None or other is None:
        return 0.0
    x, z = one.positive + one.negative, other.positive + other.negative
    size = np.sqrt((x**2).sum() * (z**2).sum())
    return float((x * z).sum() / size) if size > 0 else 0.0


def macro_area(y: Array, s: Array) -> float:
    """The mean area over defined labels, from the same components (to check `metrics.auroc`)."""
    return float(macro(np.array([p.area for p in label_components(y, s, np.arange(len(y)), len(y))]))[0])
