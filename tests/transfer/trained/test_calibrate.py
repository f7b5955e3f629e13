"""Temperature, thresholds, decisions and uncertainty of a head, against SciPy and scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax
from scipy.stats import entropy

from encoders.zoo.head_card import NEVER
from transfer.metrics.entropy_parts import relative_entropy
from transfer.trained.calibrate import calibrate_head, calibrated_probabilities, decide_labels


def binary(n=300, labels=1, seed=0):
    """Labels, and logits that are three times too large."""
    draw = np.random.default_rng(seed)
    z = draw.normal(size=(n, labels))
    return (draw.random((n, labels)) < expit(z)).astype(float), 3 * z


def test_the_temperature_of_labels_has_the_lowest_log_loss():
    y, z = binary(labels=2)
    y[:40, 1] = np.nan

    def loss(log_t):
        each = np.logaddexp(0, z / np.exp(log_t)) - y * z / np.exp(log_t)
        return np.nanmean(each, axis=0).sum()

    want = np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x)
    assert calibrate_head(y, z, "multilabel", ("a", "b")).temperature == pytest.approx(want, rel=1e-4)
    assert want > 1.5  # the logits are too large


def test_the_temperature_of_classes_has_the_lowest_cross_entropy():
    draw = np.random.default_rng(1)
    z = draw.normal(size=(400, 4))
    truth = np.array([draw.choice(4, p=p) for p in softmax(z, axis=1)])
    scale = 0.3 * z

    def loss(log_t):
        return -log_softmax(scale / np.exp(log_t), axis=1)[np.arange(400), truth].mean()

    want = np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x)
    chosen = calibrate_head(np.eye(4)[truth], scale, "multiclass", tuple("abcd"))
    assert chosen.temperature == pytest.approx(want, rel=1e-4)
    assert want < 0.6
    assert chosen.threshold is None
    assert calibrated_probabilities(scale, want, "multiclass") == pytest.approx(softmax(scale / want, axis=1), abs=1e-12)


def test_the_threshold_of_each_label_has_youdens_index():
    y, z = binary(labels=3, seed=2)
    chosen = calibrate_head(y, z, "multilabel", ("a", "b", "c"))
    p = expit(z / chosen.temperature)
    for c in range(3):
        false, hit, cuts = sklearn.metrics.roc_curve(y[:, c], p[:, c], drop_intermediate=False)
        assert chosen.threshold[c] == pytest.approx(cuts[np.argmax(hit - false)], abs=1e-12)
    decided = decide_labels(calibrated_probabilities(z, chosen.temperature, "multilabel"), chosen.threshold)
    assert decided.sum(axis=0).tolist() == [(p[:, c] >= chosen.threshold[c] - 1e-12).sum() for c in range(3)]


def test_validation_images_that_are_told_apart_leave_the_probabilities_as_they_are():
    y, z = np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([[-2.0], [-1.0], [1.0], [2.0]])
    chosen = calibrate_head(y, z, "binary", ("sick",))
    assert chosen.temperature == 1.0
    assert "they determine no temperature" in chosen.notes[0]
    assert chosen.threshold[0] == pytest.approx(expit(1.0))


def test_a_label_without_both_classes_or_better_than_chance_is_said():
    y, z = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]]), np.array([[0.2, 1.0], [0.1, -2.0], [-3.0, 0.5]])
    chosen = calibrate_head(y, z, "multilabel", ("always", "inverted"))
    assert chosen.threshold.tolist() == [0.5, NEVER]
    assert "one class of always" in chosen.notes[0]
    assert "inverted" in chosen.notes[1]
    assert not decide_labels(np.ones((2, 2)), chosen.threshold)[:, 1].any()


def test_uncertainty_is_the_entropy_from_0_to_1():
    p = np.array([[0.2, 0.3, 0.5], [1 / 3, 1 / 3, 1 / 3], [1.0, 0.0, 0.0]])
    assert relative_entropy(p, "multiclass") == pytest.approx(entropy(p, axis=1) / np.log(3))
    labels = np.array([[0.5, 0.1], [0.0, 1.0]])
    each = np.stack([entropy([labels[0], 1 - labels[0]], base=2), [0.0, 0.0]])
    assert relative_entropy(labels, "multilabel") == pytest.approx(each.mean(axis=1))
    assert decide_labels(p, None).argmax(axis=1).tolist() == [2, 0, 0]
