"""AUROC of one or several test parts with its interval, and paired differences.

Several test parts of one row of a table (folds, draws of the labels) are pooled by their components: draws of one fold share their
patients, whose errors are averaged; folds have patients of their own, whose errors add. So an area of 1 in every fold gets the interval
that no mistake among so many patients allows, where resampling would give one point.

Shapes: N rows, C labels.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from encoders.runtime.arrays import Array
from transfer.metrics import macro
from transfer.stats.common import (
    Difference,
    Interval,
    build_area_difference,
    count_fewest_patients,
    encode_patients,
    few_patients_note,
    to_columns,
    undefined_difference,
)
from transfer.stats.delong import AreaComponents, area_variance, label_components, logit_interval, mean_components
from transfer.stats.mover import mover_interval, p_value_from_interval

ScoredRows = tuple[Array, Array, Array]  # labels (N,) or (N, C), scores (N,) or (N, C), patients (N,) of one test part
ScoredFolds = Sequence[Sequence[ScoredRows]]  # for every fold, its scored draws


def auroc_interval(y: Array, s: Array, patient: Array, level: float = 0.95) -> Interval:
    """The AUROC, averaged over the labels that are defined, with its clustered DeLong interval. y, s: (N,) or (N, C)."""
    return pooled_interval([[(y, s, patient)]], level)


def pooled_interval(tests: ScoredFolds, level: float = 0.95) -> Interval:
    """The mean AUROC over test parts with one interval. tests: for every fold, its scored draws."""
    method = describe_method(tests, "logit, t")
    note, whole = few_patients_note_over_folds(tests), pool_components(tests)
    if whole is None:
        return Interval(np.nan, np.nan, np.nan, method, level, note)
    low, high = logit_interval(whole)(level)
    return Interval(whole.area, low, high, method, level, note)


def pool_components(tests: ScoredFolds, extra: ScoredFolds = ()) -> AreaComponents | None:
    """The parts of the mean area over all test parts; those of one class only are left out, and None if all are.

    extra: test parts whose patients get a place too, so that the parts of two groups can be laid beside each other."""
    own = np.concatenate([np.asarray(patient).astype(str) for fold in tests for _, _, patient in fold])
    others = [np.asarray(patient).astype(str) for fold in extra for _, _, patient in fold]
    code, n = encode_patients(np.concatenate([own, *others]))
    folds, at = [], 0
    for fold in tests:
        drawn = []
        for y, s, patient in fold:
            defined = label_components(y, s, code[at : at + len(patient)], n)
            drawn += [mean_components(defined)] if defined else []
            at += len(patient)
        folds += [mean_components(drawn)] if drawn else []
    if not folds:
        return None
    whole, (a, b, c) = mean_components(folds), np.sum([(p.n_positive, p.n_negative, p.n) for p in folds], axis=0)
    return replace(whole, n_positive=int(a), n_negative=int(b), n=int(c))


def describe_method(tests: ScoredFolds, how: str) -> str:
    """The method, as a table says it."""
    return f"clustered DeLong{f' over {len(tests)} folds' if len(tests) > 1 else ''}, {how}"


def few_patients_note_over_folds(tests: ScoredFolds) -> str:
    """The warning for insufficient patients a class over all folds, or ""."""
    return few_patients_note(*_distinct_folds(tests))


def count_fewest_over_folds(tests: ScoredFolds) -> int:
    """Patients in the smaller class of the label with fewest, over all folds."""
    return count_fewest_patients(*_distinct_folds(tests)) or 0


def _distinct_folds(tests: ScoredFolds) -> tuple[Array, Array]:
    """Labels and patients of every fold, its draws counted once."""
    y = np.concatenate([to_columns(fold[0][0]) for fold in tests])
    return y, np.concatenate([np.asarray(fold[0][2]).astype(str) for fold in tests])


def auroc_intervals(y: Array, s: Array, patient: Array, level: float = 0.95) -> list[Interval]:
    """The same for every label on its own."""
    y, s = to_columns(y), to_columns(s)
    return [auroc_interval(y[:, c], s[:, c], patient, level) for c in range(y.shape[1])]


def auroc_difference(y: Array, a: Array, b: Array, patient: Array, level: float = 0.95) -> Difference:
    """AUROC of scores `a` minus that of `b` on the same rows, averaged over labels, from the components' differences patient by patient."""
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
    """The mean AUROC of test images `a` minus that of other test images `b`, by the same encoder; patients may have images in both."""
    one, other = pool_components(a), pool_components(b)
    note = few_patients_note_over_folds(a) or few_patients_note_over_folds(b)
    method = describe_method(a, "of two groups, MOVER")
    if one is None or other is None:
        return undefined_difference(method, level, note)
    shared = correlate_areas(a, b)
    ends = mover_interval(one, other, shared)
    return build_area_difference(one.area - other.area, ends(level), p_value_from_interval(ends), method, level, note)


def correlate_areas(a: ScoredFolds, b: ScoredFolds) -> float:
    """Of the errors of the two areas, by the patients who have images in both; 0 where nobody has."""
    who = {str(p) for fold in b for _, _, patient in fold for p in patient}
    if not any(str(p) in who for fold in a for _, _, patient in fold for p in patient):
        return 0.0
    one, other = pool_components(a, extra=b), pool_components(b, extra=a)
    if one is None or other is None:
        return 0.0
    x, z = one.positive + one.negative, other.positive + other.negative
    size = np.sqrt((x**2).sum() * (z**2).sum())
    return float((x * z).sum() / size) if size > 0 else 0.0


def _without_variance(one: AreaComponents, other: AreaComponents, method: str, level: float, note: str) -> Difference:
    """Both order every pair alike: equal where there are mistakes to be alike in. Where neither made any, other patients may show some."""
    apart = one.area - other.area
    if one.area == other.area and one.area not in (0.0, 1.0):
        return Difference(0.0, 0.0, 0.0, 1.0, "not distinguishable", method, level, note)
    ends = mover_interval(one, other, 0.0)
    return build_area_difference(
        apart, ends(level), p_value_from_interval(ends), f"{method}; without a mistake: both areas' own bounds", level, note
    )


def macro_area(y: Array, s: Array) -> float:
    """The mean area over defined labels, from the same components (a check on `metrics.auroc`)."""
    return float(macro(np.array([p.area for p in label_components(y, s, np.arange(len(y)), len(y))]))[0])
