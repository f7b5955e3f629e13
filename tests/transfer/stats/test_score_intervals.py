"""The intervals of an area and of a paired difference against loops written from their definitions, and their limiting cases."""

import numpy as np
import pytest
import scipy.stats as sp

from transfer.stats.area_interval import area_interval
from transfer.stats.auroc_intervals import pooled_difference, pooled_interval
from transfer.stats.delong import area_components
from transfer.stats.difference_interval import paired_interval
from transfer.stats.interval import perfect_lower_bound
from transfer.stats.mover_interval import p_value_from_interval


def drawn(seed, patients=40, images=3, positives=12, shift=1.5, mixed=0.0):
    """Labels, scores of two correlated encoders and patients; mixed: the share of images with a label of their own."""
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(patients), rng.integers(1, images + 1, patients))
    y = (code < positives).astype(float)
    y = np.where(rng.random(len(y)) < mixed, rng.integers(0, 2, len(y)), y)
    common = rng.normal(size=patients)[code]
    a, b = (np.round(common + rng.normal(size=len(y)) + shift * y, 1) for _ in range(2))
    return y, a, b, code


def by_hand(y, s, code):
    """The area and the contributions of patients by loops over all pairs: (area, of positives, of negatives)."""
    positives, negatives = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    win = {(i, j): 1.0 if s[i] > s[j] else 0.5 if s[i] == s[j] else 0.0 for i in positives for j in negatives}
    area = sum(win.values()) / len(win)
    sides = []
    for rows, others, pair in ((positives, negatives, lambda i, j: (i, j)), (negatives, positives, lambda i, j: (j, i))):
        with_rows = sorted(set(code[rows]))
        sums = dict.fromkeys(with_rows, 0.0)
        for i in rows:
            sums[code[i]] += sum(win[pair(i, j)] for j in others) / len(others) - area
        factor = np.sqrt(len(with_rows) / (len(with_rows) - 1))
        sides.append({p: factor * v / len(rows) for p, v in sums.items()})
    return area, sides[0], sides[1]


def moments_by_hand(sides, patients):
    """Variance of each class, the patients that carry it, and the covariance of the classes, by loops."""
    variances = [sum(v**2 for v in side.values()) for side in sides]
    fourths = [sum(v**4 for v in side.values()) for side in sides]
    carriers = [min(q**2 / f, len(side) - 1) if f > 0 else 0 for side, q, f in zip(sides, variances, fourths, strict=True)]
    undo = np.sqrt((1 - 1 / len(sides[0])) * (1 - 1 / len(sides[1])))
    shared = 2 * sum(sides[0][p] * sides[1][p] for p in set(sides[0]) & set(sides[1])) * undo * patients / (patients - 1)
    return variances, carriers, shared


def model_by_hand(area, sides, patients):
    """Scale and degrees of freedom of the variance model: Newcombe's variance has the weight of one patient in each class."""
    variances, carriers, shared = moments_by_hand(sides, patients)
    fewest = min(map(len, sides))
    away = (area * fewest + 0.5) / (fewest + 1)
    total = square = 0.0
    for variance, k, side in zip(variances, carriers, sides, strict=True):
        prior = away * (1 - away) * ((1 - away) / (2 - away) + away / (1 + away)) / 2 / len(side)
        mixed = (k * variance + prior) / (k + 1)
        total, square = total + mixed, square + mixed**2 / (k + 2)
    return (total + shared) / (away * (1 - away)), total**2 / square


def outermost(inside, start, end):
    """The last point of `inside` from `start` to `end`, to 1e-11."""
    for _ in range(200):
        middle = (start + end) / 2
        start, end = (middle, end) if inside(middle) else (start, middle)
    return start


@pytest.mark.parametrize("mixed", [0.0, 0.2])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_interval_of_an_area_holds_all_areas_that_the_score_test_accepts(mixed, level):
    y, s, _, code = drawn(1, positives=20, mixed=mixed)
    area, *sides = by_hand(y, s, code)
    scale, df = model_by_hand(area, sides, 40)
    t = sp.t.ppf((1 + level) / 2, df)

    def accepted(x):
        return abs(area - x) <= t * np.sqrt(scale * x * (1 - x))

    want = outermost(accepted, area, 0.0), outermost(accepted, area, 1.0)
    assert area_interval(area_components(y, s, code, 40))(level) == pytest.approx(want, abs=1e-9)
    got = pooled_interval([[(y, s, code)]], level)  # what the tables call
    assert (got.low, got.high) == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize(("mixed", "shift"), [(0.0, 1.5), (0.2, 1.5), (0.0, 3.5)])
def test_the_interval_of_a_paired_difference_holds_all_differences_that_the_score_test_accepts(mixed, shift):
    y, s, z, code = drawn(2, patients=60, positives=25, shift=shift, mixed=mixed)
    (a, *sides_a), (b, *sides_b) = by_hand(y, s, code), by_hand(y, z, code)
    apart = [{p: one[p] - other[p] for p in one} for one, other in zip(sides_a, sides_b, strict=True)]
    variances, carriers, shared = moments_by_hand(apart, 60)
    df = sum(variances) ** 2 / sum(v**2 / (k + 1) for v, k in zip(variances, carriers, strict=True))
    (scale_a, _), (scale_b, _) = model_by_hand(a, sides_a, 60), model_by_hand(b, sides_b, 60)
    own = [sum(v) + c for v, _, c in (moments_by_hand(sides_a, 60), moments_by_hand(sides_b, 60))]
    r = (sum(own) - sum(variances) - shared) / (2 * np.sqrt(own[0] * own[1]))

    def accepted(d):
        x, w = a - (a - b - d) / 2, b + (a - b - d) / 2
        if x > 1:
            x, w = 1, 1 - d
        elif w > 1:
            x, w = 1 + d, 1
        sds = np.sqrt(max(scale_a * x * (1 - x), 0)), np.sqrt(max(scale_b * w * (1 - w), 0))
        return (a - b - d) ** 2 <= sp.t.ppf(0.975, df) ** 2 * (sds[0] ** 2 + sds[1] ** 2 - 2 * r * sds[0] * sds[1])

    want = outermost(accepted, a - b, -1.0), outermost(accepted, a - b, 1.0)
    got = pooled_difference([[(y, s, code)]], [[(y, z, code)]])
    assert (got.low, got.high) == pytest.approx(want, abs=1e-9)
    swapped = pooled_difference([[(y, z, code)]], [[(y, s, code)]])
    assert (swapped.low, swapped.high, swapped.p) == pytest.approx((-got.high, -got.low, got.p), abs=1e-9)


def test_the_p_value_is_one_minus_the_level_at_which_the_interval_ends_at_zero():
    y, s, z, code = drawn(3, positives=20)
    ends = paired_interval(area_components(y, s, code, 40), area_components(y, z, code, 40))
    p = p_value_from_interval(ends)
    assert 0 < p < 1
    assert min(abs(end) for end in ends(1 - p)) < 1e-6


def test_encoders_without_errors_keep_intervals_of_positive_width():
    y, s, _, code = drawn(4, positives=20)
    perfect, inverted, other = (area_components(y, v, code, 40) for v in (y, -y, s))
    assert area_interval(perfect)(0.95) == (perfect_lower_bound(20, 0.95), 1.0)
    assert area_interval(inverted)(0.95) == (0.0, 1 - perfect_lower_bound(20, 0.95))
    low, high = paired_interval(perfect, perfect)(0.95)
    assert low == -high < 0
    low, high = paired_interval(perfect, other)(0.95)
    assert 0 < low < 1 - other.area < high
    assert paired_interval(perfect, inverted)(0.95)[0] < 1.0
    assert paired_interval(other, other)(0.95) == (0.0, 0.0)
    assert p_value_from_interval(paired_interval(other, other)) == 1.0


@pytest.mark.parametrize("patients", [20, 26, 100])
def test_perfect_scores_are_distinguishable_from_constant_ones(patients):
    """No patient differs from the others, so the paired components say nothing; the two intervals on their own do."""
    y = np.repeat([1.0, 0.0], patients)
    code = np.arange(2 * patients)
    perfect, constant = (area_components(y, s, code, 2 * patients) for s in (y, np.zeros_like(y)))
    low, high = paired_interval(perfect, constant)(0.95)
    assert 0.2 < low < 0.5 < high < 0.9
    assert np.allclose(paired_interval(constant, perfect)(0.95), (-high, -low))
    assert p_value_from_interval(paired_interval(perfect, constant)) < 0.05


@pytest.mark.parametrize("lone", ["positive", "negative"])
def test_a_fold_with_one_patient_of_a_class_keeps_the_interval_of_all_folds(lone):
    """21 patients of the rarer class in five folds; one fold has a single one."""
    rng = np.random.default_rng(5)
    one, other = [], []
    for fold, rare in enumerate([5, 5, 5, 5, 1]):
        y = np.repeat([1.0, 0.0], [rare, 15])
        y = y if lone == "positive" else 1 - y
        patient = np.array([f"{fold}-{i}" for i in range(len(y))])
        noise = rng.normal(size=len(y))
        one.append([(y, noise + rng.normal(size=len(y)) + 2.5 * y, patient)])
        other.append([(y, noise + rng.normal(size=len(y)), patient)])
    got, without = pooled_interval(one), pooled_interval(one[:4])
    assert got.low < got.value < got.high
    assert 0.5 < (got.high - got.low) / (without.high - without.low) < 2
    assert pooled_difference(one, other).verdict == "better"


def test_a_single_test_part_with_one_patient_of_a_class_has_no_interval():
    y = np.array([1.0, *np.zeros(30)])
    p = area_components(y, np.random.default_rng(6).normal(size=31), np.arange(31), 31)
    assert np.isnan(area_interval(p)(0.95)).all()
    assert np.isnan(paired_interval(p, p)(0.95)).all()
