"""The k-NN probe against scikit-learn, and its rules for unknown labels."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from encoders.runtime.errors import InputError
from transfer.protocols import knn
from transfer.protocols.common import Features


def made(n=200, d=16, k=3, seed=0, kind="multiclass"):
    rng = np.random.default_rng(seed)
    centre = np.random.default_rng(99).normal(size=(k, d))
    code = rng.integers(0, k, n)
    x = rng.normal(size=(n, d)) + centre[code]
    names = np.arange(n).astype(str)
    return Features(x.astype(np.float32), np.eye(k, dtype=np.float32)[code], names, names, kind)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("vote", ["majority", "weighted"])
def test_predictions_agree_with_scikit_learn_up_to_ties(vote):
    train, val, test = made(seed=0), made(80, seed=1), made(150, seed=2)
    fitted = knn.fit(knn.Config(k=(7,), vote=vote), train, val)

    def softmax(distance):  # on the sphere, similarity = 1 - squared distance / 2
        return np.exp((1 - distance**2 / 2) / 0.07)

    reference = KNeighborsClassifier(7, weights="uniform" if vote == "majority" else softmax)
    want = reference.fit(unit(train.x), train.y.argmax(1)).predict_proba(unit(test.x))
    got = fitted.scores(test)
    assert got == pytest.approx(want, abs=2e-4)
    top = np.sort(want, axis=1)
    clear = top[:, -1] - top[:, -2] > 1e-3
    assert np.array_equal(got.argmax(1)[clear], want.argmax(1)[clear])


def by_hand(train, x, k, temperature):
    scores = np.zeros((len(x), train.y.shape[1]))
    similarity = unit(x.astype(np.float64)) @ unit(train.x.astype(np.float64)).T
    for i, row in enumerate(similarity):
        near = np.argsort(-row)[:k]
        w = np.exp(row[near] / temperature)
        for c in range(train.y.shape[1]):
            known = ~np.isnan(train.y[near, c])
            scores[i, c] = (w[known] * train.y[near, c][known]).sum() / w[known].sum() if known.any() else np.nanmean(train.y[:, c])
    return scores


def test_unknown_labels_have_no_vote_and_shares_are_normalised_for_every_k():
    train, val = made(kind="multilabel"), made(60, seed=1, kind="multilabel")
    y = train.y.copy()
    y[np.random.default_rng(0).random(y.shape) < 0.7] = np.nan
    train = Features(train.x, y, train.key, train.patient, "multilabel")
    cfg = knn.Config(k=(1, 4, 9), temperature=(0.1,))
    scored = []
    fitted = knn.fit(cfg, train, val, select=lambda _, scores: scored.append(scores) or float(len(scored)))
    bank = train.at(~np.isnan(y).all(1))
    for k, scores in zip(cfg.k, scored, strict=True):
        assert scores == pytest.approx(by_hand(bank, val.x, k, 0.1), abs=1e-4)
    assert fitted.k == 9
    assert fitted.scores(val) == pytest.approx(by_hand(bank, val.x, 9, 0.1), abs=1e-4)


def test_the_choice_is_the_first_best_k_on_validation_rows():
    score_of = {1: 0.4, 3: 0.9, 5: 0.9, 10: 0.1}
    scores = iter(score_of.values())
    fitted = knn.fit(knn.Config(k=tuple(score_of)), made(), made(40, seed=1), select=lambda y, s: next(scores))
    assert fitted.selection["k"] == 3
    assert [row["score"] for row in fitted.selection["table"]] == list(score_of.values())


def test_k_above_the_number_of_train_rows_is_skipped_and_an_empty_grid_is_an_error():
    assert knn.fit(knn.Config(k=(5, 500)), made(), made(40, seed=1)).k == 5
    with pytest.raises(InputError, match=r"500.*200 labeled rows"):
        knn.fit(knn.Config(k=(500,)), made(), made(40, seed=1))


def test_refitted_neighbours_do_not_score_the_validation_rows_they_hold():
    train, val = made(60), made(40, seed=1)
    unchanged, refitted = (knn.fit(knn.Config(refit=refit), train, val) for refit in (False, True))
    np.testing.assert_array_equal(refitted.val_scores, unchanged.scores(val))
    assert len(refitted.bank) == 100
    assert unchanged.val_scores is None


def test_the_norm_of_a_feature_does_not_matter():
    train, val = made(), made(40, seed=1)
    scaled = Features(train.x * np.linspace(0.1, 9, len(train.x), dtype=np.float32)[:, None], train.y, train.key, train.patient, train.kind)
    cfg = knn.Config(k=(7,))
    assert knn.fit(cfg, train, val).scores(val) == pytest.approx(knn.fit(cfg, scaled, val).scores(val), abs=1e-5)
