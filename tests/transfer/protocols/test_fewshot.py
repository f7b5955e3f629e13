"""SimpleShot against loops written from its description."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from encoders.runtime.errors import InputError
from transfer.protocols import fewshot
from transfer.protocols.common import Features
from transfer.protocols.support_sets import draw_supports, group_rows_by_class


def made(n=120, k=3, seed=0, kind="multiclass", apart=1.0):
    rng = np.random.default_rng(seed)
    code = rng.integers(0, k, n)
    x = rng.normal(size=(n, 12)) + apart * np.random.default_rng(9).normal(size=(k, 12))[code]
    names = np.arange(n).astype(str)
    return Features(x.astype(np.float32), np.eye(k, dtype=np.float32)[code], names, names, kind)


def all_episodes(fitted, x, shots):
    """(E, M, C) scores of every episode."""
    labels = fitted.train.y.shape[1]
    columns = [[] for _ in range(labels)]
    rows = Features(x, np.zeros((len(x), labels)), *[np.arange(len(x)).astype(str)] * 2, fitted.train.kind)
    for block in fitted.score_episodes(rows, shots):
        for scores, c in zip(np.moveaxis(block.scores, 1, 0), range(labels)[block.columns], strict=True):
            columns[c].append(scores)
    return np.stack([np.concatenate(c) for c in columns], axis=-1)


def by_hand(raw, x):
    """One episode: squared distances (M, K) of all rows to all class means, after subtracting the support mean and normalising rows.

    raw: (K, S, D) support rows."""
    middle = raw.mean(axis=(0, 1))
    means = [np.mean([(v - middle) / np.linalg.norm(v - middle) for v in rows], axis=0) for rows in raw]
    queries = [(v - middle) / np.linalg.norm(v - middle) for v in x]
    return np.array([[((q - m) ** 2).sum() for m in means] for q in queries])


@pytest.mark.parametrize("offset", [0.0, 300.0])  # features whose mean is much larger than their spread
@pytest.mark.parametrize("score", ["distance", "vote"])
@pytest.mark.parametrize("block", [1, 2**21])  # numbers in a block: one episode at a time, or all
def test_an_episode_is_the_nearest_class_mean(score, block, offset, monkeypatch):
    monkeypatch.setattr(fewshot, "BLOCK_VALUES", block)
    train, val = made(), made(20, seed=1)
    train, val = (replace(rows, x=rows.x + np.float32(offset)) for rows in (train, val))
    fitted = fewshot.fit(fewshot.Config(shots=(3,), episodes=4, score=score, seed=5), train, val)
    (support,) = draw_supports(group_rows_by_class(train, "patient"), 3, 4, 5)
    want = []
    for rows in support:
        distance = by_hand(train.x[rows].astype(np.float64), val.x.astype(np.float64))
        odds = np.exp(-distance)
        want.append(odds / odds.sum(1, keepdims=True) if score == "distance" else np.eye(3)[distance.argmin(1)])
    np.testing.assert_allclose(all_episodes(fitted, val.x, 3), want, atol=2e-6)
    np.testing.assert_allclose(fitted.scores(val), np.mean(want, axis=0), atol=2e-6)
    np.testing.assert_array_equal(fitted.val_scores, fitted.scores(val))
    assert fitted.selection["score"] == pytest.approx(roc_auc_score(val.y, fitted.scores(val)))


@pytest.mark.parametrize("score", ["distance", "vote"])
def test_each_label_of_a_multi_label_task_has_its_own_episodes(score):
    train, val = made(kind="multilabel"), made(20, seed=1, kind="multilabel")
    y = train.y.copy()
    y[::4, 1] = np.nan
    train = replace(train, y=y)
    fitted = fewshot.fit(fewshot.Config(shots=(5,), episodes=3, score=score), train, val)
    got = all_episodes(fitted, val.x, 5)
    for c, support in enumerate(draw_supports(group_rows_by_class(train, "patient"), 5, 3, 0)):
        for episode, rows in enumerate(support):
            assert (y[rows[0], c] == 0).all()
            assert (y[rows[1], c] == 1).all()
            distance = by_hand(train.x[rows].astype(np.float64), val.x.astype(np.float64))
            want = np.exp(-distance[:, 1]) / np.exp(-distance).sum(1) if score == "distance" else distance.argmin(1)
            np.testing.assert_allclose(got[episode, :, c], want, atol=2e-6)


def test_a_query_at_the_support_mean_or_equal_to_a_support_row_has_finite_scores():
    x = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [2.0, 3.0]], np.float32)
    y = np.array([0, 0, 1, 1, 1, 0], np.float32)[:, None]
    names = np.arange(6).astype(str)
    train = Features(x, y, names, names, "binary")
    scores = all_episodes(fewshot.fit(fewshot.Config(shots=(1, 2), episodes=40), train, train), x, 1)
    assert np.isfinite(scores).all()
    assert ((scores > 0) & (scores < 1)).all()


def test_more_shots_are_better_and_vary_less():
    fitted = fewshot.fit(fewshot.Config(episodes=60), made(400), val := made(100, seed=1))
    area = {s: np.array([roc_auc_score(val.y, scores) for scores in all_episodes(fitted, val.x, s)]) for s in fitted.shots}
    assert list(area) == [1, 2, 4, 8, 16]
    assert area[1].std() > 2 * area[16].std() > 0
    assert list(area) == sorted(area, key=lambda s: area[s].mean())


def test_shots_above_the_number_of_patients_are_skipped_and_named_and_it_is_an_error_if_none_is_left():
    train = made(60)
    train = replace(train, patient=(np.arange(60) // 3).astype(str))  # three images a patient
    patients = min(len(set(train.patient[train.y[:, c] == 1])) for c in range(3))
    images = int(train.y.sum(0).min())
    assert patients < images
    val = made(20, seed=1)
    fitted = fewshot.fit(fewshot.Config(shots=(1, patients, images), episodes=3), train, val)
    assert fitted.shots == [1, patients]
    assert fitted.selection["skipped"] == {str(images): f"the smallest class has {patients} labeled train patients"}
    fitted = fewshot.fit(fewshot.Config(shots=(1, images, images + 1), episodes=3, unit="image"), train, val)
    assert fitted.shots == [1, images]
    assert "train images" in fitted.selection["skipped"][str(images + 1)]
    with pytest.raises(InputError, match=f"a class has {patients} labeled train patients"):
        fewshot.fit(fewshot.Config(shots=(500,), episodes=3), train, val)


def test_the_same_seed_draws_the_same_support_and_another_does_not():
    train, val = made(), made(20, seed=1)
    a, b, c = (fewshot.fit(fewshot.Config(shots=(2,), episodes=5, seed=s), train, val) for s in (0, 0, 1))
    assert np.array_equal(a.scores(val), b.scores(val))
    assert not np.array_equal(a.scores(val), c.scores(val))
    assert a.support_digest(2) == b.support_digest(2) != c.support_digest(2)


def test_the_order_of_the_train_rows_changes_no_score():
    train, val = made(), made(20, seed=1)
    other = train.at(np.random.default_rng(2).permutation(len(train)))
    a, b = (fewshot.fit(fewshot.Config(shots=(2, 4), episodes=5), rows, val) for rows in (train, other))
    np.testing.assert_allclose(all_episodes(a, val.x, 4), all_episodes(b, val.x, 4), atol=2e-6)
    assert a.support_digest(4) == b.support_digest(4) != a.support_digest(2)
