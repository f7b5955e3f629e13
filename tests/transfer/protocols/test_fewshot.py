"""SimpleShot against loops written from its description."""

import numpy as np
import pytest

from encoders.runtime.errors import InputError
from encoders.runtime.random import Purpose, generator
from transfer.metrics import auroc
from transfer.protocols import fewshot
from transfer.protocols.common import Features


def made(n=120, k=3, seed=0, kind="multiclass", apart=1.0):
    rng = np.random.default_rng(seed)
    code = rng.integers(0, k, n)
    x = rng.normal(size=(n, 12)) + apart * np.random.default_rng(9).normal(size=(k, 12))[code]
    names = np.arange(n).astype(str)
    return Features(x.astype(np.float32), np.eye(k, dtype=np.float32)[code], names, names, kind)


def by_hand(bank, classes, x, shots, draw):
    """One episode: squared distances of all rows to all class means, after subtracting the support mean and normalising rows."""
    support = [bank[draw.choice(rows, shots, replace=False)].astype(np.float64) for rows in classes]
    middle = np.concatenate(support).mean(axis=0)
    means = [np.mean([(v - middle) / np.linalg.norm(v - middle) for v in rows], axis=0) for rows in support]
    queries = [(v - middle) / np.linalg.norm(v - middle) for v in x.astype(np.float64)]
    return np.array([[((q - m) ** 2).sum() for m in means] for q in queries])


@pytest.mark.parametrize("score", ["distance", "vote"])
def test_an_episode_is_the_nearest_class_mean(score):
    train, x = made(), made(20, seed=1).x
    cfg = fewshot.Config(shots=(3,), episodes=4, score=score, seed=5)
    got = list(fewshot.episode_scores(cfg, train, x, 3))
    draw = generator(5, Purpose.PROBE, 3, 0)
    for scores in got:
        distance = by_hand(train.x, [np.flatnonzero(train.y[:, c]) for c in range(3)], x, 3, draw)
        odds = np.exp(-distance)
        want = odds / odds.sum(1, keepdims=True) if score == "distance" else np.eye(3)[distance.argmin(1)]
        assert scores == pytest.approx(want)


def test_each_label_of_a_multi_label_task_has_its_own_episodes():
    train, x = made(kind="multilabel"), made(20, seed=1).x
    y = train.y.copy()
    y[::4, 1] = np.nan
    train = Features(train.x, y, train.key, train.patient, "multilabel")
    (got,) = list(fewshot.episode_scores(fewshot.Config(episodes=2), train, x, 5))[:1]
    draw = generator(0, Purpose.PROBE, 5, 1)
    odds = np.exp(-by_hand(train.x, [np.flatnonzero(y[:, 1] == v) for v in (0, 1)], x, 5, draw))
    assert got[:, 1] == pytest.approx(odds[:, 1] / odds.sum(1))


def test_the_sd_over_episodes_is_recorded_and_falls_with_shots():
    train, val = made(400), made(100, seed=1)
    fitted = fewshot.fit(fewshot.Config(episodes=60), train, val)
    table = fitted.selection["table"]
    assert list(table) == ["1", "2", "4", "8", "16"]
    assert table["1"]["sd"] > 2 * table["16"]["sd"] > 0
    assert table["1"]["mean"] < table["16"]["mean"]
    values = [np.nanmean(auroc(val.y, s)) for s in fitted.episodes(val.x, 4)]
    assert (table["4"]["mean"], table["4"]["sd"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert fitted.scores(val) == pytest.approx(np.mean(list(fitted.episodes(val.x, 16)), axis=0))


def test_shots_above_the_smallest_class_are_skipped_and_it_is_an_error_if_none_is_left():
    train = made(30)
    fewest = int(train.y.sum(0).min())
    assert fewshot.fit(fewshot.Config(shots=(1, fewest, fewest + 1), episodes=3), train, made(20, seed=1)).shots == [1, fewest]
    with pytest.raises(InputError, match="labeled train rows"):
        fewshot.fit(fewshot.Config(shots=(500,), episodes=3), train, made(20, seed=1))


def test_the_same_seed_draws_the_same_support_and_another_does_not():
    train, val = made(), made(20, seed=1)
    a, b, c = (fewshot.fit(fewshot.Config(shots=(2,), episodes=5, seed=s), train, val).scores(val) for s in (0, 0, 1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
