"""Sampling balanced over slides: a slide with many tiles is sampled as often as one with few."""

from collections import Counter

import numpy as np
import pytest

from encoders.loading.sampler import BatchOrder
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.store.write import save_store
from pretrain.loop.corpus import Corpus
from pretrain.loop.sampling_weights import row_weights


def store(path, counts, dataset="tiles"):
    images = np.random.default_rng(0).integers(0, 255, (sum(counts), 16, 16, 3), dtype=np.uint8)
    slides = np.repeat([f"s{i}" for i in range(len(counts))], counts)
    return save_store(path, images, patient=slides, meta={"slide": slides}, modality="histology", dataset=dataset)


def count_samples(corpus, weights, balance, n=4000):
    """How often each (store, slide) is sampled in n draws."""
    order = BatchOrder(corpus.index, 10, seed=1, weights=row_weights(corpus, weights, balance))
    rows = np.concatenate([order.micro_batch_rows(turn)[0] for turn in range(n // 10)])
    part = np.searchsorted(corpus.store.starts, rows, side="right") - 1
    return Counter(zip(part.tolist(), corpus.store.column("slide")[rows].tolist(), strict=True))


def test_slides_with_different_numbers_of_tiles_are_sampled_equally_often(tmp_path):
    one = Store.open(store(tmp_path / "a.h5", [40, 8, 2]))
    counts = count_samples(Corpus(one, np.arange(50)), None, "slide")
    expected = 4000 / 3
    assert len(counts) == 3
    assert all(abs(n - expected) < 4 * np.sqrt(expected * 2 / 3) for n in counts.values())  # four standard deviations


def test_slides_share_the_weight_of_their_store_equally(tmp_path):
    two = Store.open([store(tmp_path / "a.h5", [30, 6]), store(tmp_path / "b.h5", [10, 2], "other")])
    counts = count_samples(Corpus(two, np.arange(48)), [3.0, 1.0], "slide")
    for (part, _), n in counts.items():
        share = (0.75, 0.25)[part] / 2
        assert abs(n - 4000 * share) < 4 * np.sqrt(4000 * share * (1 - share))


def test_unused_rows_do_not_count_and_equal_names_in_two_data_sets_are_two_slides(tmp_path):
    two = Store.open([store(tmp_path / "a.h5", [30, 6]), store(tmp_path / "b.h5", [10, 2], "other")])
    index = np.r_[0:5, 30:36, 36:48]  # five of the thirty tiles
    weights = row_weights(Corpus(two, index), None, "slide")
    np.testing.assert_allclose(weights, 1 / np.r_[np.full(5, 5), np.full(6, 6), np.full(10, 10), np.full(2, 2)])


def test_a_missing_column_is_named_in_the_error(tmp_path):
    one = Store.open(store(tmp_path / "a.h5", [4, 8]))
    with pytest.raises(InputError, match="slied"):
        row_weights(Corpus(one, np.arange(12)), None, "slied")
