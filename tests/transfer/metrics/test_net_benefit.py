"""Net benefit, by its definition and at the ends of the threshold."""

import numpy as np
import pytest

from transfer.metrics import net_benefit, treat_all

THRESHOLDS = np.array([0.05, 0.1, 0.3, 0.5, 0.8])


def labels_and_probabilities(seed=0, n=200):
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.2).astype(float)
    p = np.round(np.clip(0.2 + 0.3 * y + 0.15 * rng.normal(size=n), 0, 1), 2)  # some equal a threshold
    return y, p


def test_it_is_found_patients_minus_weighted_false_alarms_per_image():
    y, p = labels_and_probabilities()
    want = [(((p >= t) & (y == 1)).sum() - ((p >= t) & (y == 0)).sum() * t / (1 - t)) / len(y) for t in THRESHOLDS]
    np.testing.assert_allclose(net_benefit(y, p, THRESHOLDS), want, atol=1e-12)


def test_at_another_prevalence_it_is_that_of_as_many_patients():
    y, p = labels_and_probabilities()
    negatives = np.flatnonzero(y == 0)
    repeated = np.concatenate([np.flatnonzero(y == 1), *[negatives] * 4])
    got = net_benefit(y, p, THRESHOLDS, prevalence=float(y[repeated].mean()))
    np.testing.assert_allclose(got, net_benefit(y[repeated], p[repeated], THRESHOLDS), atol=1e-12)


def test_treating_all_is_a_model_that_treats_everybody_and_none_is_worth_nothing():
    y, _ = labels_and_probabilities()
    np.testing.assert_allclose(net_benefit(y, np.ones(len(y)), THRESHOLDS), treat_all(y.mean(), THRESHOLDS), atol=1e-12)
    np.testing.assert_array_equal(net_benefit(y, np.zeros(len(y)), THRESHOLDS), 0)
    assert treat_all(0.3, np.array([0.3]))[0] == pytest.approx(0)  # everybody is worth treating below the prevalence


def test_perfect_probabilities_reach_the_prevalence():
    y, _ = labels_and_probabilities()
    np.testing.assert_allclose(net_benefit(y, y, THRESHOLDS), y.mean())


def test_unknown_labels_are_left_out_and_one_class_has_none():
    y, p = labels_and_probabilities()
    np.testing.assert_array_equal(net_benefit(np.append(y, np.nan), np.append(p, 0.9), THRESHOLDS), net_benefit(y, p, THRESHOLDS))
    assert np.isnan(net_benefit(np.ones(5), np.full(5, 0.5), THRESHOLDS)).all()
