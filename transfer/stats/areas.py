"""AUROC of one or several test parts with its interval, and paired differences.

Several test parts of one row of a table (folds, draws of the labels) are pooled by their components: draws of one fold share their
patients, whose errors are averaged; folds have patients of their own, whose errors add. So an area of 1 in every fold gets the interval
that no mistake among so many patients allows, where resampling would give one point.

Shapes: N rows, C labels.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfer.metrics import macro
from transfer.stats.common import Difference, Interval, codes, columns, fewest, of_areas, too_few, unknown
from transfer.stats.delong import Parts, components_of, logit_interval, mean_of, variance
from transfer.stats.mover import crossing, mover

Array = NDArray[Any]
Scored = tuple[Array, Array, Array]  # labels (N,) or (N, C), scores (N,) or (N, C), patients (N,) of one test part
Tests = Sequence[Sequence[Scored]]  # for every fold, its scored draws


def auroc_interval(y: Array, s: Array, patient: Array, level: float = 0.95) -> Interval:
    """The AUROC, averaged over the labels that are defined, with its clustered DeLong interval. y, s: (N,) or (N, C)."""
    return pooled_interval([[(y, s, patient)]], level)


def pooled_interval(tests: Tests, level: float = 0.95) -> Interval:
    """The mean AUROC over test parts with one interval. tests: for every fold, its scored draws."""
    method = named(tests, "logit, t")
    note, whole = few_in(tests), pooled(tests)
    if whole is None:
        return Interval(np.nan, np.nan, np.nan, method, level, note)
    low, high = logit_interval(whole)(level)
    return Interval(whole.area, low, high, method, level, note)


def pooled(tests: Tests, extra: Tests = ()) -> Parts | None:
    """The parts of the mean area over all test parts; those of one class only are left out, and None if all are.

    extra: test parts whose patients get a place too, so that the parts of two groups can be laid beside each other."""
    own = np.concatenate([np.asarray(patient).astype(str) for fold in tests for _, _, patient in fold])
    others = [np.asarray(patient).astype(str) for fold in extra for _, _, patient in fold]
    code, n = codes(np.concatenate([own, *others]))
    folds, at = [], 0
    for fold in tests:
        drawn = []
        for y, s, patient in fold:
            defined = components_of(y, s, code[at : at + len(patient)], n)
            drawn += [mean_of(defined)] if defined else []
            at += len(patient)
        folds += [mean_of(drawn)] if drawn else []
    if not folds:
        return None
    whole, (a, b, c) = mean_of(folds), np.sum([(p.n_positive, p.n_negative, p.n) for p in folds], axis=0)
    return replace(whole, n_positive=int(a), n_negative=int(b), n=int(c))


def named(tests: Tests, how: str) -> str:
    """The method, as a table says it."""
    return f"clustered DeLong{f' over {len(tests)} folds' if len(tests) > 1 else ''}, {how}"


def few_in(tests: Tests) -> str:
    """The warning for too few patients a class over all folds, or ""."""
    return too_few(*_once(tests))


def fewest_in(tests: Tests) -> int:
    """Patients in the smaller class of the label with fewest, over all folds."""
    return fewest(*_once(tests)) or 0


def _once(tests: Tests) -> tuple[Array, Array]:
    """Labels and patients of every fold, its draws counted once."""
    y = np.concatenate([columns(fold[0][0]) for fold in tests])
    return y, np.concatenate([np.asarray(fold[0][2]).astype(str) for fold in tests])


def auroc_intervals(y: Array, s: Array, patient: Array, level: float = 0.95) -> list[Interval]:
    """The same for every label on its own."""
    y, s = columns(y), columns(s)
    return [auroc_interval(y[:, c], s[:, c], patient, level) for c in range(y.shape[1])]


def auroc_difference(y: Array, a: Array, b: Array, patient: Array, level: float = 0.95) -> Difference:
    """AUROC of scores `a` minus that of `b` on the same rows, averaged over labels, from the components' differences patient by patient."""
    return pooled_difference([[(y, a, patient)]], [[(y, b, patient)]], level)


def pooled_difference(a: Tests, b: Tests, level: float = 0.95) -> Difference:
    """The mean AUROC of `a` minus that of `b` over the same folds and draws of the same rows."""
    from scipy.stats import t

    method = named(a, "paired, t")
    note, one, other = few_in(a), pooled(a), pooled(b)
    if one is None or other is None:
        return unknown(method, level, note)
    whole = one - other
    v, df = variance(whole)
    if v == 0:
        return _without_variance(one, other, method, level, note)
    half = float(t.ppf((1 + level) / 2, df) * np.sqrt(v))
    p = float(2 * t.sf(abs(whole.area) / np.sqrt(v), df))
    return of_areas(whole.area, (whole.area - half, whole.area + half), p, method, level, note)


def pooled_gap(a: Tests, b: Tests, level: float = 0.95) -> Difference:
    """The mean AUROC of test images `a` minus that of other test images `b`, by the same encoder; patients may have images in both."""
    one, other = pooled(a), pooled(b)
    note = few_in(a) or few_in(b)
    method = named(a, "of two groups, MOVER")
    if one is None or other is None:
        return unknown(method, level, note)
    shared = correlation(a, b)
    ends = mover(one, other, shared)
    return of_areas(one.area - other.area, ends(level), crossing(ends), method, level, note)


def correlation(a: Tests, b: Tests) -> float:
    """Of the errors of the two areas, by the patients who have images in both; 0 where nobody has."""
    who = {str(p) for fold in b for _, _, patient in fold for p in patient}
    if not any(str(p) in who for fold in a for _, _, patient in fold for p in patient):
        return 0.0
    one, other = pooled(a, extra=b), pooled(b, extra=a)
    if one is None or other is None:
        return 0.0
    x, z = one.positive + one.negative, other.positive + other.negative
    size = np.sqrt((x**2).sum() * (z**2).sum())
    return float((x * z).sum() / size) if size > 0 else 0.0


def _without_variance(one: Parts, other: Parts, method: str, level: float, note: str) -> Difference:
    """Both order every pair alike: equal where there are mistakes to be alike in. Where neither made any, other patients may show some."""
    apart = one.area - other.area
    if one.area == other.area and one.area not in (0.0, 1.0):
        return Difference(0.0, 0.0, 0.0, 1.0, "not distinguishable", method, level, note)
    ends = mover(one, other, 0.0)
    return of_areas(apart, ends(level), crossing(ends), f"{method}; without a mistake: both areas' own bounds", level, note)


def macro_area(y: Array, s: Array) -> float:
    """The mean area over defined labels, from the same components (a check on `metrics.auroc`)."""
    return float(macro(np.array([p.area for p in components_of(y, s, np.arange(len(y)), len(y))]))[0])
