"""The k-NN probe against scikit-learn, and its rules for unknown labels."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from encoders.features import nearest
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


def with_ties(n=160, d=6, seed=0):
    """Train rows of few distinct directions: many duplicates, some of other lengths, and exact ties; hashes in no order of the rows."""
    rng = np.random.default_rng(seed)
    distinct = np.concatenate([rng.integers(-1, 2, size=(12, d)), rng.normal(size=(12, d))]).astype(np.float32)
    distinct[0] = 1
    x = distinct[rng.integers(0, len(distinct), n)] * rng.choice([1, 2, 3], n)[:, None].astype(np.float32)
    y = rng.integers(0, 2, size=(n, 2)).astype(np.float32)
    y[rng.random(y.shape) < 0.2] = np.nan
    names = np.array([f"k{i}" for i in range(n)])
    sha256 = np.array([hashlib.sha256(str(i).encode()).hexdigest() for i in range(n)])
    return Features(x, y, names, names, "multilabel", sha256)


def nearest_by_hash(train, x, k):
    """(M, k) hashes of the neighbours by a loop: similarity, then hash."""
    similarity = np.round(unit_or_zero(x.astype(np.float64)) @ unit_or_zero(train.x.astype(np.float64)).T, 12)
    return [[train.sha256[i] for i in sorted(range(len(train)), key=lambda i: (-row[i], train.sha256[i]))[:k]] for row in similarity]


def unit_or_zero(x):
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 0, length, 1)


@pytest.mark.parametrize("spare", [(1,), (16, 256)])
@pytest.mark.parametrize("vote", ["majority", "weighted"])
@pytest.mark.parametrize("refit", [False, True])
def test_scores_do_not_depend_on_the_order_of_the_train_rows_with_duplicates_and_ties(refit, vote, spare, monkeypatch):
    monkeypatch.setattr(nearest, "SPARE_NEIGHBOURS", spare)  # a few spare ones do not suffice for these ties
    train, val = with_ties(), with_ties(40, seed=1)
    val = replace(val, sha256=np.array([s[::-1] for s in val.sha256]))
    test = np.concatenate([with_ties(30, seed=2).x, np.zeros((1, 6), np.float32), np.random.default_rng(3).normal(size=(9, 6))])
    rows = Features(test.astype(np.float32), np.zeros((40, 2), np.float32), val.key, val.patient, "multilabel")
    cfg = knn.Config(k=(1, 3, 7, 20), vote=vote, refit=refit)
    want = knn.fit(cfg, train, val)
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(train))
        got = knn.fit(cfg, train.at(order), val)
        assert got.selection == want.selection
        np.testing.assert_array_equal(got.scores(rows), want.scores(rows))


@pytest.mark.parametrize("spare", [(1,), (16, 256)])
@pytest.mark.parametrize("k", [1, 3, 20])
def test_ties_are_broken_by_the_hash_of_the_image(k, spare, monkeypatch):
    monkeypatch.setattr(nearest, "SPARE_NEIGHBOURS", spare)
    train, test = with_ties(), with_ties(30, seed=2)
    bank = knn.fit(knn.Config(k=(k,)), train, with_ties(20, seed=1)).bank
    _, index = nearest.find_neighbours(bank.x, test.x, k)
    assert [[bank.sha256[i] for i in row] for row in index] == nearest_by_hash(bank, test.x, k)


def test_without_hashes_ties_are_broken_by_key():
    train, val = replace(with_ties(), sha256=None), replace(with_ties(40, seed=1), sha256=None)
    order = np.random.default_rng(0).permutation(len(train))
    a, b = (knn.fit(knn.Config(k=(3, 7)), rows, val) for rows in (train, train.at(order)))
    np.testing.assert_array_equal(a.scores(val), b.scores(val))
