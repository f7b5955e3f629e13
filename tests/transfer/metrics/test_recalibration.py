"""Calibration slope and intercepts: scikit-learn without penalty, closed forms, values of statsmodels, and a loop for the variance."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from transfer import metrics as m
from transfer.metrics.recalibration import BOUND, logit

STATSMODELS = {
    "slope": (0.589901358802, 0.094782886410),
    "intercept": (-0.063887446673, 0.154709988808),
    "in_the_large": (-0.108159598108, 0.184625712147),
}


def miscalibrated(seed=0, n=400, patients=90, slope=0.6, shift=-0.4):
    rng = np.random.default_rng(seed)
    who = rng.integers(0, patients, n)
    z = rng.normal(size=patients)[who] + rng.normal(size=n)
    y = (rng.random(n) < 1 / (1 + np.exp(-(slope * z + shift)))).astype(float)
    return y, 1 / (1 + np.exp(-z)), who


@pytest.mark.parametrize("seed", range(4))
def test_slope_and_intercept_are_those_of_scikit_learn_without_a_penalty(seed):
    y, p, _ = miscalibrated(seed)
    theirs = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(logit(p)[:, None], y)
    ours = m.fit_recalibration(y, p)
    assert ours.slope.value == pytest.approx(theirs.coef_[0, 0], abs=1e-6)
    assert ours.intercept.value == pytest.approx(theirs.intercept_[0], abs=1e-6)


def test_calibration_in_the_large_balances_the_expected_and_the_observed_number():
    y, p, _ = miscalibrated()
    large = m.fit_recalibration(y, p).in_the_large.value
    assert (1 / (1 + np.exp(-(logit(p) + large)))).sum() == pytest.approx(y.sum(), abs=1e-8)
    # Of equal probabilities it is the difference of two log odds.
    assert m.fit_recalibration(y, np.full(len(y), 0.2)).in_the_large.value == pytest.approx(logit(y.mean()) - logit(0.2), abs=1e-9)


def test_two_distinct_probabilities_have_a_closed_form():
    y = np.repeat([1.0, 0, 1, 0], [30, 10, 5, 25])
    p = np.repeat([0.9, 0.3], [40, 30])
    fit = m.fit_recalibration(y, p)
    slope = (logit(30 / 40) - logit(5 / 30)) / (logit(0.9) - logit(0.3))
    assert fit.slope.value == pytest.approx(slope, abs=1e-9)
    assert fit.intercept.value == pytest.approx(logit(30 / 40) - slope * logit(0.9), abs=1e-9)


def test_estimates_and_patient_clustered_errors_are_those_of_statsmodels():
    """statsmodels 0.15: Logit, and GLM with an offset; cov_type="cluster" without correction, times U / (U - 1)."""
    y, p, who = miscalibrated(seed=11, n=300, patients=60)
    fit = m.fit_recalibration(y, p, np.array([f"patient {i}" for i in who]))
    for name in ("slope", "intercept", "in_the_large"):
        assert getattr(fit, name) == pytest.approx(STATSMODELS[name], abs=1e-8)


def test_the_variance_is_the_sandwich_summed_by_patient_in_a_loop():
    y, p, who = miscalibrated(seed=3)
    fit = m.fit_recalibration(y, p, who)
    x = np.column_stack([np.ones(len(y)), logit(p)])
    mean = 1 / (1 + np.exp(-x @ [fit.intercept.value, fit.slope.value]))
    bread, meat, patients = np.zeros((2, 2)), np.zeros((2, 2)), np.unique(who)
    for row, mu in zip(x, mean, strict=True):
        bread += mu * (1 - mu) * np.outer(row, row)
    for g in patients:
        score = sum(x[i] * (y[i] - mean[i]) for i in np.flatnonzero(who == g))
        meat += np.outer(score, score)
    variance = np.linalg.inv(bread) @ meat @ np.linalg.inv(bread) * len(patients) / (len(patients) - 1)
    assert (fit.intercept.error, fit.slope.error) == pytest.approx(np.sqrt(np.diag(variance)), rel=1e-7)


def test_repeated_images_of_a_patient_add_no_certainty():
    y, p, who = miscalibrated()
    once, thrice = m.fit_recalibration(y, p, who), m.fit_recalibration(*(np.repeat(a, 3) for a in (y, p, who)))
    assert thrice.slope == pytest.approx(once.slope, abs=1e-8)
    assert thrice.in_the_large == pytest.approx(once.in_the_large, abs=1e-8)


def test_temperature_scaling_multiplies_the_slope_by_the_temperature():
    y, p, _ = miscalibrated()
    plain, warm = m.fit_recalibration(y, p), m.fit_recalibration(y, m.temper(p[:, None], 2.5)[:, 0])
    assert warm.slope.value == pytest.approx(2.5 * plain.slope.value, abs=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_probabilities_that_separate_the_classes_have_no_slope_but_are_calibrated_in_the_large(sign):
    y = np.repeat([0.0, 1.0], 20)
    fit = m.fit_recalibration(y, 0.5 + sign * (y - 0.5) * 0.8)
    assert np.isnan(fit.slope.value)
    assert np.isnan(fit.intercept.error)
    assert fit.in_the_large.value == pytest.approx(0, abs=1e-9)


def test_equal_probabilities_have_no_slope_and_one_class_has_nothing():
    y = np.repeat([0.0, 1.0], 20)
    assert np.isnan(m.fit_recalibration(y, np.full(40, 0.3)).slope.value)
    for only in (np.zeros(5), np.full(5, np.nan), np.empty(0)):
        assert np.isnan(m.fit_recalibration(only, np.linspace(0.1, 0.9, len(only))).in_the_large.value)


def test_probabilities_of_zero_and_one_are_moved_and_counted_and_unknown_labels_are_left_out():
    y, p, who = miscalibrated()
    p[:7], p[7:10] = 0.0, 1.0
    moved = m.fit_recalibration(y, np.clip(p, BOUND, 1 - BOUND), who)
    got = m.fit_recalibration(np.append(y, np.nan), np.append(p, 0.0), np.append(who, 0))
    assert got.at_bounds == 10
    for ours, want in zip(got[:3], moved[:3], strict=True):
        assert ours == pytest.approx(want)


@pytest.mark.parametrize("p", [1e-9, 1 - 1e-9])
def test_the_fit_ends_from_however_far(p):
    y = np.repeat([0.0, 1.0], 50)
    assert m.fit_recalibration(y, np.full(100, p)).in_the_large.value == pytest.approx(-logit(p), abs=1e-6)


def test_the_panel_has_the_mean_over_labels_and_for_classes_the_predicted_one():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (200, 2)).astype(float)
    s = 1 / (1 + np.exp(-(y - 0.5 + rng.normal(size=y.shape))))
    values = m.compute_all_metrics(y, s, m.choose_on_validation(y, s, "multilabel"))
    fits = [m.fit_recalibration(y[:, c], s[:, c]) for c in range(2)]
    assert values["calibration_slope"] == pytest.approx(np.mean([f.slope.value for f in fits]))
    assert values["calibration_in_the_large"] == pytest.approx(np.mean([f.in_the_large.value for f in fits]))
    code, s = rng.integers(0, 3, 200), rng.dirichlet(np.ones(3), 200)
    hot = np.eye(3)[code]
    values = m.compute_all_metrics(hot, s, m.choose_on_validation(hot, s, "multiclass"))
    assert values["calibration_slope"] == pytest.approx(m.fit_recalibration((s.argmax(1) == code).astype(float), s.max(1)).slope.value)
