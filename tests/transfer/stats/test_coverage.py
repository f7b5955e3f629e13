"""Coverage of the intervals and rate of false verdicts, on simulated test sets with several images per patient.

The score of an image is patient noise + image noise, plus a shift for positives. Some labels are those of the patient, others of the image,
so that a patient can have positives and negatives. Both noises are normal, so the true area is known: Phi(shift / sqrt(2)), with variance 1
of the score (Hanley and McNeil 1982; the share of pairs within one patient is negligible).
"""

import numpy as np
import pytest
from scipy.stats import norm

from tests.perf.coverage import PAIRS, measure_balanced_accuracy
from tests.perf.simulated_scores import Cell, draw_noise, draw_pair, draw_test_set, shift_for, true_balanced_accuracy
from transfer.metrics import auroc
from transfer.stats import auroc_interval, cluster_bootstrap, holm, paired_difference, pooled_difference, pooled_interval
from transfer.stats.area_interval import area_interval
from transfer.stats.permutation import permutation_p_value

SHIFT = 1.2
SHARED = 0.5  # share of the variance of a score that is common to the images of a patient


def simulated(patients, seed, systems=1, mixed=0.1):
    """Labels, scores of `systems` equally good systems, patients; 1 to 6 images per patient."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), rng.integers(1, 7, patients))
    own = rng.random(patients) < 0.5
    y = np.where(rng.random(len(patient)) < mixed, rng.random(len(patient)) < 0.5, own[patient]).astype(float)
    scores = []
    for _ in range(systems):
        effect, noise = rng.normal(size=patients)[patient], rng.normal(size=len(patient))
        scores.append(np.sqrt(SHARED) * effect + np.sqrt(1 - SHARED) * noise + SHIFT * y)
    return y, scores, patient


def expected_area():
    """The expected estimate: nearly all pairs are of two patients."""
    return norm.cdf(SHIFT / np.sqrt(2))


HARD = [Cell(20, 0.03, True), Cell(20, 0.3, True), Cell(30, 0.03, False)]  # few positive patients; `tests/perf/coverage.py` has the others


@pytest.mark.parametrize("cell", HARD)
def test_the_interval_of_a_high_area_covers_with_few_positive_patients(cell):
    rng = np.random.default_rng(11)
    inside = []
    for _ in range(250):
        t = draw_test_set(cell, rng)
        got = auroc_interval(t.y, draw_noise(t, rng) + shift_for(0.98) * t.y, t.code)
        inside.append(got.low <= 0.98 <= got.high)
    assert 0.93 <= np.mean(inside) <= 0.995


@pytest.mark.parametrize("cell", HARD)
@pytest.mark.parametrize(("high", "low", "shared"), PAIRS[1:])
def test_the_interval_of_a_difference_of_high_areas_covers_with_few_positive_patients(cell, high, low, shared):
    rng = np.random.default_rng(12)
    inside = []
    for _ in range(200):
        t = draw_test_set(cell, rng)
        one, other = draw_pair(t, shared, rng)
        got = paired_difference(auroc, t.y, one + shift_for(high) * t.y, other + shift_for(low) * t.y, t.code)
        inside.append(got.low <= high - low <= got.high)
    assert np.mean(inside) >= 0.92


def test_at_most_six_percent_of_verdicts_on_equal_high_areas_are_false():
    rng = np.random.default_rng(13)
    wrong = []
    for _ in range(250):
        t = draw_test_set(Cell(20, 0.03, True), rng)
        one, other = draw_pair(t, 0.5, rng)
        wrong.append(paired_difference(auroc, t.y, one + shift_for(0.97) * t.y, other + shift_for(0.97) * t.y, t.code).verdict)
    assert np.mean([v in ("better", "worse") for v in wrong]) <= 0.06


def test_balanced_accuracy_covers_where_a_class_often_has_no_error():
    rng = np.random.default_rng(14)
    inside, target, shift = [], true_balanced_accuracy(0.98, 0.03), shift_for(0.98)
    for _ in range(400):
        t = draw_test_set(Cell(20, 0.03, False), rng)
        low, high = area_interval(measure_balanced_accuracy(t, draw_noise(t, rng) + shift * t.y, shift))(0.95)
        inside.append(low <= target <= high)
    assert np.mean(inside) >= 0.93


def fold_rows(t, s, fold):
    """The test parts of five folds, without those that lack a positive."""
    kept = [fold[t.code] == f for f in range(5)]
    return [[(t.y[k], s[k], t.code[k].astype(str))] for k in kept if t.y[k].any()]


def test_intervals_over_folds_cover_when_a_fold_has_one_positive_patient():
    rng = np.random.default_rng(15)
    inside, wrong = [], []
    for _ in range(250):
        t = draw_test_set(Cell(20, 0.3, False), rng)
        fold = np.concatenate([[0], 1 + np.arange(19) % 4, np.arange(t.patients - 20) % 5])  # one positive patient in the first
        one, other = (noise + shift_for(0.9) * t.y for noise in draw_pair(t, 0.5, rng))
        got = pooled_interval(fold_rows(t, one, fold))
        inside.append(got.low <= 0.9 <= got.high)
        wrong.append(pooled_difference(fold_rows(t, one, fold), fold_rows(t, other, fold)).verdict != "not distinguishable")
    assert np.mean(inside) >= 0.93
    assert np.mean(wrong) <= 0.06


@pytest.mark.parametrize("several", [False, True])
def test_the_permutation_test_of_few_patients_has_at_most_six_percent_false_verdicts(several):
    rng = np.random.default_rng(16)
    p = []
    for _ in range(300):
        t = draw_test_set(Cell(8, 0.5, several), rng)
        fold = np.tile(np.arange(8) % 5, 2)  # one or two patients of each class
        one, other = (noise + shift_for(0.85) * t.y for noise in draw_pair(t, 0.5, rng))
        p.append(permutation_p_value(fold_rows(t, one, fold), fold_rows(t, other, fold), n=199))
    assert np.mean(np.array(p) <= 0.05) <= 0.075  # .05, and two standard errors of 300 draws
    assert np.mean(np.array(p) <= 0.3) >= 0.05  # the test can reject


@pytest.mark.slow
@pytest.mark.parametrize("patients", [50, 100, 200])
def test_the_interval_of_an_auroc_has_its_nominal_coverage(patients):
    inside = []
    for seed in range(600):
        y, (s,), patient = simulated(patients, seed)
        got = auroc_interval(y, s, patient)
        if not got.note:  # fewer than 20 patients of a class were drawn
            inside.append(got.low <= expected_area() <= got.high)
    assert len(inside) > 400
    assert 0.93 <= np.mean(inside) <= 0.97


@pytest.mark.slow
def test_without_clustering_the_coverage_is_too_low():
    """The same intervals with every image as its own patient."""
    inside = []
    for seed in range(300):
        y, (s,), patient = simulated(100, seed)
        got = auroc_interval(y, s, np.arange(len(patient)))
        inside.append(got.low <= expected_area() <= got.high)
    assert np.mean(inside) < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("patients", [45, 120])
def test_at_most_six_percent_of_verdicts_on_equal_systems_are_false(patients):
    verdicts = []
    for seed in range(600):
        y, (a, b), patient = simulated(patients, seed, systems=2)
        verdicts.append(paired_difference(auroc, y, a, b, patient).verdict)
    assert np.mean([v != "not distinguishable" for v in verdicts]) <= 0.06


@pytest.mark.slow
def test_the_bootstrap_has_its_coverage_at_a_hundred_patients():
    inside = []
    for seed in range(200):
        y, (s,), patient = simulated(120, seed)
        got = cluster_bootstrap(auroc, y, s, patient, n=400)
        inside.append(got.low <= expected_area() <= got.high)
    assert 0.90 <= np.mean(inside) <= 0.98


def test_below_twenty_patients_per_class_the_interval_has_a_note():
    y, (s,), patient = simulated(24, 0)
    assert "insufficient patients" in auroc_interval(y, s, patient).note


@pytest.mark.slow
def test_the_interval_over_folds_has_its_coverage_when_most_folds_have_no_error():
    """Five folds of sixteen patients and an area near .98, where an average of resampled folds would often be a single point."""
    inside, points = [], 0
    area = norm.cdf(2.9 / np.sqrt(2))
    for seed in range(500):
        rng = np.random.default_rng(seed)
        folds = []
        for fold in range(5):
            y = np.arange(16) % 2.0
            folds.append([(y, rng.normal(size=16) + 2.9 * y, np.array([f"{fold}-{i}" for i in range(16)]))])
        got = pooled_interval(folds)
        points += sum(auroc(y, s)[0] == 1 for ((y, s, _),) in folds)
        assert got.low < got.high
        inside.append(got.low <= area <= got.high)
    assert np.mean(inside) >= 0.93
    assert points > 500  # folds without an error


@pytest.mark.slow
def test_holm_keeps_the_rate_of_any_false_verdict_among_ten_comparisons():
    """Ten tasks of one pair of equal systems: without the correction, four benches in ten would have a false verdict."""
    raw, corrected = [], []
    for seed in range(150):
        p = []
        for test in range(10):
            y, (a, b), patient = simulated(60, 1000 * seed + test, systems=2)
            p.append(paired_difference(auroc, y, a, b, patient).p)
        raw.append(min(p) < 0.05)
        corrected.append(holm(np.array(p)).min() < 0.05)
    assert np.mean(raw) > 0.25
    assert np.mean(corrected) <= 0.07  # .05, and two standard errors of 150 draws would be .086
