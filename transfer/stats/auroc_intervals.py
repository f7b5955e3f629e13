"""AUROC of one or several test parts with its confidence interval, and paired differences.

Several test parts in one row of a table (folds, draws of the labels) are pooled by their components: draws of one fold share their
patients, so errors are averaged per patient; folds have different patients, so their errors add. An area of 1 in every fold therefore has
the interval of zero errors among all patients, where resampling would give a single point.

Shapes: N rows, C labels.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from encoders.runtime.arrays import Array
from transfer.metrics import macro
from transfer.stats.delong import AreaComponents, area_variance, label_components, logit_interval, mean_components
from transfer.stats.interval import Interval
from transfer.stats.mover_interval import mover_interval, p_value_from_interval
from transfer.stats.patients import count_fewest_patients, encode_patients, few_patients_note, to_columns
from transfer.stats.verdict import Difference, build_area_difference, undefined_difference

ScoredRows = tuple[Array, Array, Array]  # labels (N,) or (N, C), scores (N,) or (N, C), patients (N,) of one test part
ScoredFolds = Sequence[Sequence[ScoredRows]]  # for every fold, the scored test part of every draw


def auroc_interval(y: Array, s: Array, patient: Array, level: float = 0.95) -> Interval:
    """The mean AUROC over the labels with both classes, with its clustered DeLong interval. y, s: (N,) or (N, C)."""
    return pooled_interval([[(y, s, patient)]], level)


def pooled_interval(tests: ScoredFolds, level: float = 0.95) -> Interval:
    """The mean AUROC over test parts, with one interval. tests: for every fold, its scored draws."""
    method = describe_method(tests, "logit, t")
    note, whole = few_patients_note_over_folds(tests), pool_components(tests)
    if whole is None:
        return Interval(np.nan, np.nan, np.nan, method, level, note)
    low, high = logit_interval(whole)(level)
    return Interval(whole.area, low, high, method, level, note)


def pool_components(tests: ScoredFolds, also: ScoredFolds = ()) -> AreaComponents | None:
    """The components of the mean area over all test parts. Parts with a single class are ignored; None when all have a single class.

    also: test parts whose patients are counted among the G, so that the components of two groups are aligned."""
    own = np.concatenate([np.asarray(patient).astype(str) for fold in tests for _, _, patient in fold])
    others = [np.asarray(patient).astype(str) for fold in also for _, _, patient in fold]
    code, n = encode_patients(np.concatenate([own, *others]))
    folds, at = [], 0
    for fold in tests:
        draws = []
        for y, s, patient in fold:
            defined = label_components(y, s, code[at : at + len(patient)], n)
            draws += [mean_components(defined)] if defined else []
            at += len(patient)
        folds += [mean_components(draws)] if draws else []
    if not folds:
        return None
    whole, (a, b, c) = mean_components(folds), np.sum([(p.n_positive, p.n_negative, p.n) for p in folds], axis=0)
    return replace(whole, n_positive=int(a), n_negative=int(b), n=int(c))


def describe_method(tests: ScoredFolds, details: str) -> str:
    """The method of an interval, as a table names it."""
    return f"clustered DeLong{f' over {len(tests)} folds' if len(tests) > 1 else ''}, {details}"


def few_patients_note_over_folds(tests: ScoredFolds) -> str:
    """The warning for insufficient patients in a class over all folds, or ""."""
    return few_patients_note(*_distinct_folds(tests))


def count_fewest_over_folds(tests: ScoredFolds) -> int:
    """The smallest number of patients in a class over all folds; 0 when no label has both classes."""
    return count_fewest_patients(*_distinct_folds(tests)) or 0


def _distinct_folds(tests: ScoredFolds) -> tuple[Array, Array]:
    """Labels and patients of every fold, its draws counted once."""
    y = np.concatenate([to_columns(fold[0][0]) for fold in tests])
    return y, np.concatenate([np.asarray(fold[0][2]).astype(str) for fold in tests])


def auroc_intervals(y: Array, s: Array, patient: Array, level: float = 0.95) -> list[Interval]:
    """The AUROC of every label with its interval."""
    y, s = to_columns(y), to_columns(s)
    return [auroc_interval(y[:, c], s[:, c], patient, level) for c in range(y.shape[1])]


def auroc_difference(y: Array, a: Array, b: Array, patient: Array, level: float = 0.95) -> Difference:
    """AUROC of scores `a` minus that of `b` on the same rows, averaged over labels; interval from per-patient differences."""
    return pooled_difference([[(y, a, patient)]], [[(y, b, patient)]], level)


def pooled_difference(a: ScoredFolds, b: ScoredFolds, level: float = 0.95) -> Difference:
    """The mean AUROC of `a` minus that of `b` over the same folds and draws of the same rows."""
    from scipy.stats import t

    method = describe_method(a, "paired, t")
    note, one, other = few_patients_note_over_folds(a), pool_components(a), pool_components(b)
    if one is None or other is None:
        return undefined_difference(method, level, note)
    whole = one - other
    v, df = area_variance(whole)
    if v == 0:
        return _without_variance(one, other, method, level, note)
    half = float(t.ppf((1 + level) / 2, df) * np.sqrt(v))
    p = float(2 * t.sf(abs(whole.area) / np.sqrt(v), df))
    return build_area_difference(whole.area, (whole.area - half, whole.area + half), p, method, level, note)


def pooled_gap(a: ScoredFolds, b: ScoredFolds, level: float = 0.95) -> Difference:
    """The mean AUROC on test images `a` minus that on other test images `b` of one encoder; patients may have images in both."""
    one, other = pool_components(a), pool_components(b)
    note = few_patients_note_over_folds(a) or few_patients_note_over_folds(b)
    method = describe_method(a, "of two groups, MOVER")
    if one is None or other is None:
        return undefined_difference(method, level, note)
    shared = correlate_areas(a, b)
    ends = mover_interval(one, other, shared)
    return build_area_difference(one.area - other.area, ends(level), p_value_from_interval(ends), method, level, note)


def correlate_areas(a: ScoredFolds, b: ScoredFolds) -> float:
    """Correlation of the errors of the two areas, from patients with images in both; 0 when there are none."""
    patients_of_b = {str(p) for fold in b for _, _, patient in fold for p in patient}
    if not any(str(p) in patients_of_b for fold in a for _, _, patient in fold for p in patient):
        return 0.0
    one, other = pool_components(a, also=b), pool_components(b, also=a)
    if one is None or other is None:
        return 0.0
    x, z = one.positive + one.negative, other.positive + other.negative
    size = np.sqrt((x**2).sum() * (z**2).sum())
    return float((x * z).sum() / size) if size > 0 else 0.0


def _without_variance(one: AreaComponents, other: AreaComponents, method: str, level: float, note: str) -> Difference:
    """The difference when its variance is 0. Zero width only if both sides make the same errors; without errors, MOVER."""
    difference = one.area - other.area
    if one.area == other.area and one.area not in (0.0, 1.0):
        return Difference(0.0, 0.0, 0.0, 1.0, "not distinguishable", method, level, note)
    ends = mover_interval(one, other, 0.0)
    return build_area_difference(
        difference, ends(level), p_value_from_interval(ends), f"{method}; without errors: bounds of both areas", level, note
    )


def macro_area(y: Array, s: Array) -> float:
    """The mean area over defined labels, from the same components (to check `metrics.auroc`)."""
    return float(macro(np.array([p.area for p in label_components(y, s, np.arange(len(y)), len(y))]))[0])
