"""Prediction sets: scores by hand, quantiles in closed form, and coverage by simulation."""

import numpy as np
import pytest

from transfer.metrics.conformal import RAPS_PENALTY, calibrate_sets, patient_quantile, predict_sets, score_classes

P = np.array([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8]])
U = np.array([0.5, 0.25])


def test_scores_are_those_of_the_papers():
    assert score_classes(P, "lac", U) == pytest.approx(1 - P)
    # Of equal probabilities the first class comes first.
    aps = np.array([[0.25, 0.8 + 0.1, 0.5 + 0.15], [0.8 + 0.025, 0.9 + 0.025, 0.2]])
    assert score_classes(P, "aps", U) == pytest.approx(aps)
    assert score_classes(P, "raps", U) == pytest.approx(aps + RAPS_PENALTY * np.array([[0, 2, 1], [1, 2, 0]]))


@pytest.mark.parametrize("n", [9, 19, 99, 100])
def test_one_image_a_patient_gives_the_quantile_of_split_conformal_prediction(n):
    scores = np.random.default_rng(n).random(n)
    for level in (0.5, 0.8, 0.9):
        assert patient_quantile(scores, np.arange(n), level) == np.sort(scores)[int(np.ceil(level * (n + 1) - 1e-9)) - 1]


def test_too_few_patients_have_no_limit():
    assert patient_quantile(np.arange(8.0), np.arange(8), 0.9) == np.inf
    assert patient_quantile(np.arange(9.0), np.arange(9), 0.9) == 8
    assert patient_quantile(np.array([]), np.array([]), 0.5) == np.inf
    assert patient_quantile(np.arange(900.0), np.arange(900) % 8, 0.9) == np.inf, "images of a patient are no further patients"


def test_a_patient_with_many_images_counts_once():
    scores, patient = np.r_[np.zeros(9), np.ones(1000)], np.r_[np.arange(9), np.full(1000, 9)]
    assert patient_quantile(scores, patient, 0.8) == 0
    assert patient_quantile(scores, np.arange(1009), 0.8) == 1


def draw(rng, patients, classes=4):
    """Images of patients, 1 to 5 each, whose class and difficulty depend on the patient; and probabilities of an overconfident model."""
    count = rng.integers(1, 6, patients)
    patient = np.repeat(np.arange(patients), count)
    truth = np.where(
        rng.random(len(patient)) < 0.7,
        rng.choice(classes, patients, p=[0.4, 0.3, 0.2, 0.1])[patient],
        rng.integers(0, classes, len(patient)),
    )
    logits = (
        rng.normal(0, 1, (len(patient), classes)) + np.eye(classes)[truth] * np.exp(rng.normal(0, 1, patients) * (count > 2))[patient, None]
    )
    p = np.exp(2 * (logits + np.log([0.4, 0.3, 0.2, 0.1])))
    return p / p.sum(1, keepdims=True), truth, patient


@pytest.mark.parametrize(("kind", "by_class"), [("aps", False), ("raps", False), ("lac", False), ("aps", True)])
def test_an_image_of_a_new_patient_is_covered_as_often_as_promised(kind, by_class):
    rng, covered = np.random.default_rng(0), []
    for _ in range(500):
        p, truth, patient = draw(rng, 600)
        limits = calibrate_sets(score_classes(p, kind, rng.random(len(p))), truth, patient, 0.9, by_class)
        p, truth, patient = draw(rng, 600)
        hit = predict_sets(score_classes(p, kind, rng.random(len(p))), limits)[np.arange(len(p)), truth]
        own = [np.bincount(patient, hit & (truth == c)) / np.maximum(np.bincount(patient, truth == c), 1) for c in range(4)]
        seen = [np.bincount(patient, truth == c) > 0 for c in range(4)]
        whole = (np.bincount(patient, hit) / np.bincount(patient)).mean()
        covered.append([whole, *(rate[has].mean() for rate, has in zip(own, seen, strict=True))])
    means, error = np.mean(covered, axis=0), np.std(covered, axis=0) / np.sqrt(500)
    assert (error < 0.002).all()
    if by_class:
        assert means[1:] == pytest.approx([0.9] * 4, abs=0.01)
    else:
        assert means[0] == pytest.approx(0.9, abs=0.01)
        assert np.ptp(means[1:]) > 0.02, "without +class, classes differ"


def test_images_taken_for_patients_miss_the_promise():
    """What counting by patient is for: here large patients are easy, and counting images makes sets too small for the others."""
    rng, covered = np.random.default_rng(1), []
    for _ in range(100):
        parts = []
        for _ in range(2):
            count = np.where(rng.random(200) < 0.1, 30, 1)
            patient = np.repeat(np.arange(200), count)
            parts.append((np.where(np.repeat(count, count) == 30, 0.1, 1.0) * rng.random(len(patient)), patient))
        (cal, own), (test, new) = parts
        inside = [np.bincount(new, test <= patient_quantile(cal, by, 0.9)) / np.bincount(new) for by in (own, np.arange(len(cal)))]
        covered.append([rate.mean() for rate in inside])
    by_patient, by_image = np.mean(covered, axis=0)
    assert by_patient == pytest.approx(0.9, abs=0.01)
    assert by_image < 0.75
