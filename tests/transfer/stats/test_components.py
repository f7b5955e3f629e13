"""Components of average precision and balanced accuracy: the value is that of the metric and of scikit-learn, and the contributions are
the derivatives of the weighted metric, found by changing the weight of one patient at a time."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from transfer.metrics import average_precision, balanced_accuracy
from transfer.stats.ap_components import measure_average_precisions
from transfer.stats.balanced_accuracy_components import measure_balanced_accuracies
from transfer.stats.delong import mean_components


def drawn(seed, labels=1, levels=None, patients=30):
    """Labels (some unknown), scores (with ties if `levels`), patients of 1 to 4 rows each, in mixed order."""
    rng = np.random.default_rng(seed)
    code = rng.permutation(np.repeat(np.arange(patients), rng.integers(1, 5, patients)))
    y = (rng.random((len(code), labels)) < 0.3).astype(float)
    s = rng.normal(size=y.shape) + y
    s = np.round(s * levels) / levels if levels else s
    y[rng.random(y.shape) < 0.1] = np.nan
    return y, s, code, patients


def derivatives(metric, code, n):
    """(n, C) the change of the metric per unit of weight of each patient, by central differences."""
    step = 1e-4
    weight = np.ones((len(code), 2 * n))
    for patient in range(n):
        weight[code == patient, patient] += step
        weight[code == patient, n + patient] -= step
    values = np.asarray(metric(weight=weight))
    return (values[:n] - values[n:]) / (2 * step)


def contributions(p):
    """(G,) contributions without the small-sample factors."""
    return p.positive * np.sqrt(1 - 1 / p.n_positive) + p.negative * np.sqrt(1 - 1 / p.n_negative)


@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_average_precision_has_the_value_of_scikit_learn_and_its_own_derivatives(levels, seed):
    y, s, code, n = drawn(seed, labels=3, levels=levels)
    got = measure_average_precisions(y, s, code, n)
    slopes = derivatives(lambda weight: average_precision(y, s, weight=weight), code, n)
    for c, p in enumerate(got):
        known = ~np.isnan(y[:, c])
        assert p.area == pytest.approx(average_precision_score(y[known, c], s[known, c]), abs=1e-12)
        assert p.area == pytest.approx(average_precision(y, s)[c], abs=1e-12)
        np.testing.assert_allclose(contributions(p), slopes[:, c], atol=1e-7)


def test_balanced_accuracy_of_labels_has_the_value_of_scikit_learn_and_its_own_derivatives():
    y, s, code, n = drawn(2, labels=3)
    threshold = np.array([0.2, 0.5, 0.9])
    got = measure_balanced_accuracies(y, s, code, n, kind="multilabel", threshold=threshold)
    slopes = derivatives(lambda weight: balanced_accuracy(y, s, threshold=threshold, weight=weight), code, n)
    for c, p in enumerate(got):
        known = ~np.isnan(y[:, c])
        assert p.area == pytest.approx(balanced_accuracy_score(y[known, c], s[known, c] >= threshold[c]), abs=1e-12)
        np.testing.assert_allclose(contributions(p), slopes[:, c], atol=1e-7)


def test_balanced_accuracy_of_classes_is_the_mean_of_the_recalls_of_those_that_occur():
    rng = np.random.default_rng(3)
    code = np.repeat(np.arange(25), 3)
    true = rng.integers(0, 3, len(code))  # the fourth class does not occur
    y = np.eye(4)[true]
    s = rng.normal(size=y.shape) + y
    got = measure_balanced_accuracies(y, s, code, 25, kind="multiclass")
    assert [p is None for p in got] == [False, False, False, True]
    whole = mean_components([p for p in got if p is not None])
    assert whole.area == pytest.approx(balanced_accuracy(y, s, kind="multiclass")[0], abs=1e-12)
    slopes = derivatives(lambda weight: balanced_accuracy(y, s, kind="multiclass", weight=weight), code, 25)
    undone = np.mean([p.positive * np.sqrt(1 - 1 / p.n_positive) for p in got[:3]], axis=0)
    np.testing.assert_allclose(undone, slopes[:, 0], atol=1e-7)


def test_a_single_class_has_no_components():
    y, s, code = np.ones((6, 1)), np.arange(6.0)[:, None], np.arange(6)
    assert measure_average_precisions(y, s, code, 6) == [None]
    assert measure_balanced_accuracies(y, s, code, 6, kind="binary") == [None]
    one_hot = np.eye(3)[np.zeros(6, dtype=int)]
    assert measure_balanced_accuracies(one_hot, one_hot, code, 6, kind="multiclass") == [None] * 3
