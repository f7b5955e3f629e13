"""Referral of the least certain images: against loops, scikit-learn, the risk-coverage curve, and repeated rows."""

import numpy as np
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from transfer.metrics.calibration import risk_coverage
from transfer.metrics.selective import Decided, keep_most_certain, measure_kept


def decisions(n=200, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.3).astype(int)
    p = 1 / (1 + np.exp(-(2 * truth - 1 + rng.normal(0, 1.5, n))))
    p = np.round(p, 1) if ties else p
    return Decided(truth, (p >= 0.4) != truth, np.abs(p - 0.4), truth.astype(float)[:, None], p[:, None])


@pytest.mark.parametrize("share", [0, 0.05, 0.1, 0.5])
def test_the_rest_has_the_metrics_of_scikit_learn_on_the_most_certain_images(share):
    d = decisions()
    kept = np.argsort(-d.certainty)[: round(200 * (1 - share))]
    m = measure_kept(d, share, np.ones((200, 1)), 2)
    called = d.error[kept] != d.truth[kept]
    assert m.error[0] == pytest.approx(d.error[kept].mean())
    assert m.recall[0] == pytest.approx(recall_score(d.truth[kept], called, average=None))
    assert m.auroc[0] == pytest.approx(roc_auc_score(d.truth[kept], d.s[kept, 0]))
    assert m.caught[0] == pytest.approx(1 - d.error[kept].sum() / d.error.sum())


def test_the_error_is_that_of_the_risk_coverage_curve():
    d = decisions(seed=1)
    curve = risk_coverage(d.error.astype(float), d.certainty)
    for i in (49, 99, 149, 199):
        assert measure_kept(d, 1 - curve["coverage"][i], np.ones((200, 1)), 2).error[0] == pytest.approx(curve["risk"][i])


def test_a_weight_is_a_repeated_row_and_equal_certainty_has_no_order():
    d, rng = decisions(ties=True), np.random.default_rng(2)
    weight = rng.integers(0, 4, 200)
    again, other = np.repeat(np.arange(200), weight), rng.permutation(200)
    pick = lambda rows: Decided(*(part[rows] for part in d))  # noqa: E731
    for share in (0.07, 0.3):
        one = measure_kept(d, share, weight[:, None], 2)
        for same in (
            measure_kept(pick(again), share, np.ones((len(again), 1)), 2),
            measure_kept(pick(other), share, weight[other][:, None], 2),
        ):
            for a, b in zip(one, same, strict=True):
                assert a == pytest.approx(b)


def test_exactly_the_share_is_referred_and_ties_are_divided():
    kept = keep_most_certain(np.array([0.9, 0.5, 0.5, 0.5, 0.1]), 0.4, np.ones((5, 1)))[:, 0]
    assert kept == pytest.approx([1, 2 / 3, 2 / 3, 2 / 3, 0])
    weight = np.random.default_rng(0).integers(0, 5, (50, 7))
    kept = keep_most_certain(np.random.default_rng(1).random(50).round(1), 0.23, weight)
    assert kept.sum(axis=0) == pytest.approx(0.77 * weight.sum(axis=0))
    assert (kept <= weight).all()


def test_certainty_that_says_nothing_catches_the_share_of_errors_that_is_referred():
    rng = np.random.default_rng(3)
    d = decisions(20000)
    d = d._replace(certainty=rng.random(20000))
    assert measure_kept(d, 0.2, np.ones((20000, 1)), 2, ranking=False).caught[0] == pytest.approx(0.2, abs=0.02)
    assert np.isnan(measure_kept(d, 0.2, np.ones((20000, 1)), 2, ranking=False).auroc).all()
