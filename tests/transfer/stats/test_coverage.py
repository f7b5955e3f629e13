"""Do the intervals cover, and are false verdicts as rare as they claim? Simulated test sets with several images a patient.

An image's score is z = patient + own noise, plus a shift where the label is positive; labels are the patient's for some images and the
image's own for others, so that positives and negatives of one patient occur together. Both noises are normal, so the true area is known:
Phi(shift / sqrt(2)), where z of one image has variance 1 (Hanley and McNeil 1982; pairs of one patient are a vanishing share).
"""

import numpy as np
import pytest
from scipy.stats import norm

from transfer.metrics import auroc
from transfer.stats import auroc_interval, cluster_bootstrap, holm, paired_difference, pooled_interval

SHIFT = 1.2
SHARED = 0.5  # share of a score's variance that a patient's images have in common


def simulated(patients, seed, systems=1, mixed=0.1):
    """Labels, scores of `systems` equally good systems, patients; 1 to 6 images a patient."""
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
    """The mean of the estimate: all but a few pairs are of two patients."""
    return norm.cdf(SHIFT / np.sqrt(2))


@pytest.mark.slow
@pytest.mark.parametrize("patients", [45, 100, 200])
def test_the_interval_of_an_auroc_covers_what_it_says(patients):
    inside = []
    for seed in range(1500):
        y, (s,), patient = simulated(patients, seed)
        got = auroc_interval(y, s, patient)
        inside.append(got.low <= expected_area() <= got.high)
    assert 0.93 <= np.mean(inside) <= 0.97


@pytest.mark.slow
def test_images_taken_for_patients_would_cover_too_little():
    """What the clustering is for: the same intervals with every image its own patient."""
    inside = []
    for seed in range(600):
        y, (s,), patient = simulated(100, seed)
        got = auroc_interval(y, s, np.arange(len(patient)))
        inside.append(got.low <= expected_area() <= got.high)
    assert np.mean(inside) < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("patients", [45, 120])
def test_verdicts_on_equal_systems_are_false_at_most_six_times_in_a_hundred(patients):
    verdicts = []
    for seed in range(1500):
        y, (a, b), patient = simulated(patients, seed, systems=2)
        verdicts.append(paired_difference(auroc, y, a, b, patient).verdict)
    assert np.mean([v != "not distinguishable" for v in verdicts]) <= 0.06


@pytest.mark.slow
def test_the_bootstrap_covers_with_a_hundred_patients():
    inside = []
    for seed in range(300):
        y, (s,), patient = simulated(120, seed)
        got = cluster_bootstrap(auroc, y, s, patient, n=400)
        inside.append(got.low <= expected_area() <= got.high)
    assert 0.90 <= np.mean(inside) <= 0.98


def test_below_twenty_patients_a_class_the_interval_says_too_few():
    y, (s,), patient = simulated(24, 0)
    assert "too few" in auroc_interval(y, s, patient).note


@pytest.mark.slow
def test_the_interval_over_folds_covers_where_most_folds_are_without_a_mistake():
    """Five folds of sixteen patients and an area near .98: an average of resampled folds would be one point in many of these."""
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
    assert points > 500  # folds without a mistake


@pytest.mark.slow
def test_one_false_verdict_among_ten_comparisons_is_as_rare_after_holm():
    """Ten tasks of one pair of equal systems: without the correction four benches in ten would claim something."""
    raw, corrected = [], []
    for seed in range(300):
        p = []
        for test in range(10):
            y, (a, b), patient = simulated(60, 1000 * seed + test, systems=2)
            p.append(paired_difference(auroc, y, a, b, patient).p)
        raw.append(min(p) < 0.05)
        corrected.append(holm(np.array(p)).min() < 0.05)
    assert np.mean(raw) > 0.25
    assert np.mean(corrected) <= 0.07  # .05, and two standard errors of 300 draws would be .075
