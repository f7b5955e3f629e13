"""Memory of the linear probe: beside the float32 features it may hold the rotated rows and little else."""

import tracemalloc

import numpy as np
import pytest

from tests.perf.linear_memory import measure_ratio
from transfer.bench.lazy_features import FeatureRows
from transfer.protocols import linear, logistic, logistic_rows
from transfer.protocols.common import Features


def make_rows(n, width, labels, seed=0):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n, width)).astype(np.float32)
    y = (x[:, :labels] + draw.normal(size=(n, labels)) > np.linspace(0, 2, labels)).astype(np.float32)
    names = np.arange(n).astype("S8")
    return Features(x, y, names, names, "binary" if labels == 1 else "multilabel")


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks as small beside these features as the usual ones are beside those of a real data set."""
    monkeypatch.setattr(logistic_rows, "BLOCK_BYTES", 2**16)
    monkeypatch.setattr(logistic, "LOGITS_BYTES", 2**16)
    monkeypatch.setattr(logistic, "WIDTH_BYTES", 2**16)


def peak_beside_train(work, train):
    """Peak of the memory that `work` takes, as a multiple of the train features, which exist before."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / train.x.nbytes


@pytest.mark.parametrize("labels", [1, 14])
@pytest.mark.parametrize("cfg", [linear.Config(steps=4), linear.Config(steps=4, refit=True), linear.Config(steps=4, standardise=False)])
def test_a_fit_and_its_scores_take_at_most_one_and_a_half_times_the_train_features(labels, cfg, small_blocks):
    train, val, test = make_rows(10_000, 192, labels), make_rows(1_000, 192, labels, 1), make_rows(2_000, 192, labels, 2)

    def work():
        fitted = linear.fit(cfg, train, val)
        fitted.scores(val)
        fitted.scores(test)

    assert peak_beside_train(work, train) < 1.5


@pytest.mark.parametrize("mapped", [True, False])
def test_rows_of_a_file_equal_those_of_the_array_in_any_order(tmp_path, mapped):
    whole = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    np.save(tmp_path / "a.npy", whole[:30])
    np.save(tmp_path / "b.npy", whole[[45, 40]])  # of the second store, rows 30 to 49, only these two are used
    parts = [np.load(tmp_path / f"{name}.npy", mmap_mode="r" if mapped else None) for name in "ab"]
    place = np.full(20, -1)
    place[[15, 10]] = 0, 1
    rows = FeatureRows(parts, [np.arange(30), place])
    wanted = np.array([40, 3, 29, 45, 3, 0])
    np.testing.assert_array_equal(rows[wanted], whole[wanted])
    with pytest.raises(IndexError, match="1 of 2 rows have no features"):
        rows[np.array([3, 31])]


@pytest.mark.slow
def test_the_peak_of_a_process_is_at_most_two_and_a_half_times_the_train_features():
    assert measure_ratio(60_000, 1024, labels=3, steps=2) < 2.5
