"""Sampling balanced over slides: a slide of many tiles is not seen more often than one of few."""

from collections import Counter

import numpy as np
import pytest

from encoders.loading.sampler import BatchOrder
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.store.write import save_store
from pretrain.loop.setup import Corpus, row_weights


def store(path, counts, dataset="tiles"):
    images = np.random.default_rng(0).integers(0, 255, (sum(counts), 16, 16, 3), dtype=np.uint8)
    slides = np.repeat([f"s{i}" for i in range(len(counts))], counts)
    return save_store(path, images, patient=slides, meta={"slide": slides}, modality="histology", dataset=dataset)


def drawn(corpus, weights, balance, n=4000):
    """How often each (store, slide) is drawn in n draws."""
    order = BatchOrder(corpus.index, 10, seed=1, weights=row_weights(corpus, weights, balance))
    rows = np.concatenate([order.of(turn)[0] for turn in range(n // 10)])
    part = np.searchsorted(corpus.store.starts, rows, side="right") - 1
    return Counter(zip(part.tolist(), corpus.store.column("slide")[rows].tolist(), strict=True))


def test_slides_of_unlike_size_are_drawn_equally_often(tmp_path):
    one = Store.open(store(tmp_path / "a.h5", [40, 8, 2]))
    counts = drawn(Corpus(one, np.arange(50)), None, "slide")
    expected = 4000 / 3
    assert len(counts) == 3
    assert all(abs(n - expected) < 4 * np.sqrt(expected * 2 / 3) for n in counts.values())  # four standard deviations


def test_weights_are_of_stores_and_slides_share_what_their_store_is_given(tmp_path):
    two = Store.open([store(tmp_path / "a.h5", [30, 6]), store(tmp_path / "b.h5", [10, 2], "other")])
    counts = drawn(Corpus(two, np.arange(48)), [3.0, 1.0], "slide")
    for (part, _), n in counts.items():
        share = (0.75, 0.25)[part] / 2
        assert abs(n - 4000 * share) < 4 * np.sqrt(4000 * share * (1 - share))


def test_rows_left_out_do_not_count_and_equal_names_of_two_data_sets_are_two_slides(tmp_path):
    two = Store.open([store(tmp_path / "a.h5", [30, 6]), store(tmp_path / "b.h5", [10, 2], "other")])
    index = np.r_[0:5, 30:36, 36:48]  # five of the thirty tiles
    weights = row_weights(Corpus(two, index), None, "slide")
    np.testing.assert_allclose(weights, 1 / np.r_[np.full(5, 5), np.full(6, 6), np.full(10, 10), np.full(2, 2)])


def test_a_column_that_is_not_there_is_named(tmp_path):
    one = Store.open(store(tmp_path / "a.h5", [4, 8]))
    with pytest.raises(InputError, match="slied"):
        row_weights(Corpus(one, np.arange(12)), None, "slied")
