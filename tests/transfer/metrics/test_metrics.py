"""Every metric against scikit-learn or a closed form, with ties, unknown labels and weights."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn import metrics as sk

from encoders.runtime.errors import InputError
from transfer import metrics as m
from transfer.metrics.panel import DECISION_METRICS, RANKING_METRICS


def made(n=240, c=3, seed=0, step=0.1):
    """Labels of different prevalence and scores with many ties."""
    rng = np.random.default_rng(seed)
    y = (rng.random((n, c)) < [0.5, 0.08, 0.9][:c]).astype(np.float32)
    s = np.clip(np.round((0.6 * rng.random((n, c)) + 0.3 * y) / step) * step, 0, 1)
    return y, s


def classes(n=200, k=4, seed=0):
    rng = np.random.default_rng(seed)
    code = rng.integers(0, k, n)
    s = rng.dirichlet(np.ones(k), n) + 0.5 * np.eye(k)[code]
    return np.eye(k, dtype=np.float32)[code], s / s.sum(1, keepdims=True), code


RANKING = [(m.auroc, sk.roc_auc_score), (m.average_precision, sk.average_precision_score)]


@pytest.mark.parametrize(("ours", "theirs"), RANKING)
def test_ranking_agrees_with_scikit_learn_under_ties_and_unknown_labels(ours, theirs):
    y, s = made()
    y[::7] = np.nan
    known = ~np.isnan(y)
    want = [theirs(y[known[:, c], c], s[known[:, c], c]) for c in range(3)]
    assert ours(y, s) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize(("ours", "theirs"), RANKING)
def test_ranking_takes_many_weightings_at_once(ours, theirs):
    y, s = made()
    w = np.random.default_rng(1).integers(0, 4, (len(y), 300))
    got = ours(y, s, weight=w)
    assert got.shape == (300, 3)
    for b in (0, 150, 299):
        want = [theirs(y[:, c], s[:, c], sample_weight=w[:, b]) for c in range(3)]
        assert got[b] == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize(("ours", "theirs"), RANKING)
def test_micro_pools_the_cells(ours, theirs):
    y, s = made()
    assert m.micro(ours, y, s) == pytest.approx(theirs(y.ravel(), s.ravel()), abs=1e-12)


def test_a_constant_score_is_half_and_a_monotone_change_of_scores_changes_nothing():
    y, s = made()
    assert m.auroc(y, np.zeros_like(s)) == pytest.approx([0.5] * 3)
    assert np.array_equal(m.auroc(y, s), m.auroc(y, np.exp(5 * s)))
    assert m.auroc(1 - y, -s) == pytest.approx(m.auroc(y, s), abs=1e-12)


def test_a_label_without_positives_is_excluded_and_counted():
    y, s = made()
    y[:, 1] = 0
    assert np.isnan(m.auroc(y, s)[1])
    assert np.isnan(m.average_precision(y, s)[1])
    mean, left_out = m.macro(m.auroc(y, s))
    assert left_out == 1
    assert mean == pytest.approx((m.auroc(y, s)[0] + m.auroc(y, s)[2]) / 2)


def test_macro_of_nothing_defined_is_nan():
    mean, left_out = m.macro(np.array([np.nan, np.nan]))
    assert np.isnan(mean)
    assert left_out == 2


@pytest.mark.parametrize("kind", ["binary", "multilabel", "multiclass"])
def test_all_metrics_are_the_macro_means_of_the_registered_metrics(kind):
    y, s = classes()[:2] if kind == "multiclass" else made(c=1 if kind == "binary" else 3)
    choice = m.choose_on_validation(y, s, kind)
    values = m.compute_all_metrics(y, s, choice)
    for name, metric in RANKING_METRICS.items():
        assert values[name] == pytest.approx(np.mean(metric(y, s)))
    for name, metric in DECISION_METRICS.items():
        assert values[name] == pytest.approx(np.nanmean(metric(y, s, kind, choice.threshold)))
    assert list(values)[: len(RANKING_METRICS) + len(DECISION_METRICS)] == [*RANKING_METRICS, *DECISION_METRICS]
    assert all(isinstance(value, float) for value in values.values())


DECIDED = [
    (m.accuracy, sk.accuracy_score),
    (m.balanced_accuracy, sk.balanced_accuracy_score),
    (m.mcc, sk.matthews_corrcoef),
    (m.kappa, sk.cohen_kappa_score),
]


@pytest.mark.parametrize(("ours", "theirs"), DECIDED)
def test_decisions_agree_with_scikit_learn(ours, theirs):
    y, s = made()
    assert ours(y, s, "multilabel") == pytest.approx([theirs(y[:, c], s[:, c] >= 0.5) for c in range(3)])
    y, s, code = classes()
    assert ours(y, s, "multiclass") == pytest.approx([theirs(code, s.argmax(1))])


def test_f1_and_precision_agree_with_scikit_learn():
    y, s = made()
    predicted = s >= 0.5
    assert m.macro_f1(y, s) == pytest.approx([sk.f1_score(y[:, c], predicted[:, c]) for c in range(3)])
    assert m.precision(y, s) == pytest.approx([sk.precision_score(y[:, c], predicted[:, c]) for c in range(3)])
    y, s, code = classes()
    assert m.macro_f1(y, s, "multiclass") == pytest.approx([sk.f1_score(code, s.argmax(1), average="macro")])
    assert m.precision(y, s, "multiclass") == pytest.approx([sk.precision_score(code, s.argmax(1), average="macro")])


@pytest.mark.parametrize("ours", [m.accuracy, m.balanced_accuracy, m.macro_f1, m.precision, m.mcc, m.kappa])
def test_a_weight_equals_repeated_rows(ours):
    y, s, _ = classes(60)
    w = np.random.default_rng(2).integers(0, 3, (60, 5))
    got = ours(y, s, "multiclass", weight=w)
    for b in range(5):
        rows = np.repeat(np.arange(60), w[:, b])
        assert got[b] == pytest.approx(ours(y[rows], s[rows], "multiclass"))


def test_unknown_labels_do_not_enter_a_decision_metric():
    y, s = made()
    y[:50, 0] = np.nan
    assert m.accuracy(y, s)[0] == pytest.approx(sk.accuracy_score(y[50:, 0], s[50:, 0] >= 0.5))


def test_balanced_accuracy_of_one_known_class_is_not_defined():
    assert np.isnan(m.balanced_accuracy(np.ones((5, 1)), np.ones((5, 1)))[0])


def test_brier_and_log_loss_agree_with_scikit_learn():
    y, s = made()
    s = np.clip(s, 0.01, 0.99)
    assert m.brier(y, s) == pytest.approx([sk.brier_score_loss(y[:, c], s[:, c]) for c in range(3)])
    assert m.log_loss(y, s) == pytest.approx([sk.log_loss(y[:, c], s[:, c]) for c in range(3)])
    w = np.random.default_rng(2).integers(0, 3, (len(y), 2))
    assert m.brier(y, s, weight=w)[1] == pytest.approx([sk.brier_score_loss(y[:, c], s[:, c], sample_weight=w[:, 1]) for c in range(3)])


def test_the_parts_of_the_brier_score_add_up_and_binned_forecasts_need_no_within_term():
    y, s = made(step=0.25)
    parts = m.brier_parts(y[:, 0], s[:, 0], bins=4)
    assert parts["reliability"] - parts["resolution"] + parts["uncertainty"] + parts["within"] == pytest.approx(parts["brier"])
    # By hand, over the distinct forecasts: Murphy's three terms alone make the score.
    values = np.unique(s[:, 0])
    bins = [(len(t), v, t.mean()) for v in values if len(t := y[s[:, 0] == v, 0])]
    n, rate = len(y), y[:, 0].mean()
    murphy = sum(k * (v - t) ** 2 for k, v, t in bins) / n - sum(k * (t - rate) ** 2 for k, v, t in bins) / n + rate * (1 - rate)
    assert murphy == pytest.approx(parts["brier"])


def ece_by_hand(y, s, edges):
    total = 0.0
    for low, high in pairwise(edges):
        inside = (s > low) & (s <= high) if low > 0 else (s <= high)
        if inside.any():
            total += inside.sum() * abs(y[inside].mean() - s[inside].mean())
    return total / len(y)


def test_calibration_error_is_its_definition():
    rng = np.random.default_rng(0)
    s = rng.random(400)
    y = (rng.random(400) < s**2).astype(float)
    assert m.ece(y[:, None], s[:, None], bins=10)[0] == pytest.approx(ece_by_hand(y, s, np.linspace(0, 1, 11)))
    order = np.argsort(s)
    want = np.mean([abs(y[rows].mean() - s[rows].mean()) for rows in np.split(order, 10)])
    assert m.ece(y[:, None], s[:, None], bins=10, mass="equal_mass")[0] == pytest.approx(want)


def test_scores_on_bin_edges_and_at_both_ends_are_counted_once():
    table = m.reliability(np.array([0.0, 1, 0, 1]), np.array([0.0, 0.5, 0.5, 1.0]), bins=2)
    assert table["count"].tolist() == [3, 1]


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_temperature_scaling_finds_the_temperature_that_was_applied(kind):
    rng = np.random.default_rng(0)
    logit = 2 * rng.normal(size=(20_000, 3))
    if kind == "multiclass":
        right = np.exp(logit) / np.exp(logit).sum(1, keepdims=True)
        y = np.eye(3)[(right.cumsum(1) < rng.random((20_000, 1))).sum(1)]
        sharp = np.exp(logit * 2.5) / np.exp(logit * 2.5).sum(1, keepdims=True)
    else:
        right = 1 / (1 + np.exp(-logit))
        y = (rng.random(right.shape) < right).astype(float)
        sharp = 1 / (1 + np.exp(-2.5 * logit))
    found = m.fit_temperature(y, sharp, kind)
    assert found == pytest.approx(2.5, rel=0.03)
    assert m.temper(sharp, 2.5, kind) == pytest.approx(right, abs=1e-4)


def test_risk_coverage_is_its_definition():
    error, confidence = np.array([0, 1, 0, 1]), np.array([0.9, 0.6, 0.8, 0.6])
    got = m.risk_coverage(error, confidence)
    assert got["coverage"].tolist() == [0.25, 0.5, 1.0, 1.0]
    assert got["risk"] == pytest.approx([0, 0, 0.5, 0.5])
    assert got["area"] == pytest.approx(0.25)


def test_thresholds_reach_their_target_and_no_other_threshold_does_better():
    y, s = (a[:, 0] for a in made(step=0.001))
    cut = m.choose_threshold(y, s, "sensitivity", 0.9)
    assert (s[y == 1] >= cut).mean() >= 0.9
    assert (s[y == 1] > cut).mean() < 0.9
    cut = m.choose_threshold(y, s, "specificity", 0.9)
    assert (s[y == 0] < cut).mean() >= 0.9
    assert (s[y == 0] < s[s < cut].max()).mean() < 0.9
    false, hit, thresholds = sk.roc_curve(y, s)
    j = m.at_threshold(y, s, m.choose_threshold(y, s, "youden"))
    assert j.sensitivity + j.specificity - 1 == pytest.approx((hit - false).max())
    assert len(thresholds) > 10


def test_predictive_values_follow_bayes_at_the_stated_prevalence():
    y, s = (a[:, 0] for a in made())
    observed = m.at_threshold(y, s, 0.5)
    predicted = s >= 0.5
    assert observed.ppv == pytest.approx(y[predicted].mean())
    assert observed.npv == pytest.approx(1 - y[~predicted].mean())
    rare = m.at_threshold(y, s, 0.5, prevalence=0.01)
    assert (rare.sensitivity, rare.specificity) == (observed.sensitivity, observed.specificity)
    a, b = observed.sensitivity * 0.01, (1 - observed.specificity) * 0.99
    assert rare.ppv == pytest.approx(a / (a + b))


def test_an_operating_point_needs_both_classes():
    with pytest.raises(InputError, match="only one class"):
        m.choose_threshold(np.ones(4), np.arange(4.0))


def test_curves_agree_with_scikit_learn():
    y, s = (a[:, 0] for a in made())
    false, hit, _ = m.roc_curve(y, s)
    want = sk.roc_curve(y, s, drop_intermediate=False)
    assert np.allclose(false, want[0])
    assert np.allclose(hit, want[1])
    precision, recall, cut = m.precision_recall_curve(y, s)
    want = sk.precision_recall_curve(y, s)
    assert np.allclose(precision, want[0][:-1][::-1])
    assert np.allclose(recall, want[1][:-1][::-1])
    assert np.allclose(cut, want[2][::-1])
