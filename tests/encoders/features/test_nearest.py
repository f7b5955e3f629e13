import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from encoders.features.nearest import QUERY_CHUNK, find_neighbours, vote_shares
from encoders.runtime.errors import InputError

RNG = np.random.default_rng(0)
TRAIN, TEST = RNG.normal(size=(300, 16)), RNG.normal(size=(70, 16))


def test_neighbours_equal_those_of_scikit_learn():
    similarity, index = find_neighbours(TRAIN, TEST, 9)
    distance, want = NearestNeighbors(n_neighbors=9, metric="cosine", algorithm="brute").fit(TRAIN).kneighbors(TEST)
    assert np.array_equal(index, want)
    assert np.abs(similarity - (1 - distance)).max() < 1e-5


def test_the_chunk_size_does_not_change_the_neighbours(monkeypatch):
    whole = find_neighbours(TRAIN, TEST, 5)
    monkeypatch.setattr("encoders.features.nearest.QUERY_CHUNK", 7)
    parts = find_neighbours(TRAIN, TEST, 5)
    assert np.array_equal(whole[1], parts[1])
    assert np.allclose(whole[0], parts[0], atol=1e-6)
    assert QUERY_CHUNK > 7


def test_the_length_of_a_row_does_not_matter_and_rows_of_zeros_have_similarity_0():
    a = find_neighbours(TRAIN, TEST, 5)
    b = find_neighbours(TRAIN * RNG.uniform(0.1, 9, size=(300, 1)), TEST * 3, 5)
    assert np.array_equal(a[1], b[1])
    assert np.allclose(find_neighbours(TRAIN, np.zeros((1, 16)), 3)[0], 0)


def test_votes_of_equal_weight_equal_those_of_scikit_learn():
    y = RNG.integers(0, 3, 300)
    _, index = find_neighbours(TRAIN, TEST, 11)
    want = KNeighborsClassifier(11, metric="cosine", algorithm="brute").fit(TRAIN, y).predict_proba(TEST)
    assert np.allclose(vote_shares(np.ones_like(index, float), np.eye(3)[y], index), want, atol=1e-12)


def test_neighbours_with_an_unknown_label_do_not_vote():
    y = np.array([[1.0, np.nan], [0.0, np.nan], [np.nan, 1.0]])
    got = vote_shares(np.array([[0.5, 0.3, 0.2], [0.6, 0.2, 0.2]]), y, np.array([[0, 1, 2], [2, 2, 2]]))
    assert np.allclose(got[0], [0.5 / 0.8, 1.0])
    assert np.isnan(got[1, 0])
    assert got[1, 1] == 1.0


@pytest.mark.parametrize("k", [0, 301])
def test_a_number_of_neighbours_outside_1_to_n_is_rejected(k):
    with pytest.raises(InputError, match=r"choose k from 1 to 300"):
        find_neighbours(TRAIN, TEST, k)


def test_rows_of_different_width_or_with_nan_are_rejected():
    with pytest.raises(InputError, match="different encoders"):
        find_neighbours(TRAIN, TEST[:, :8], 3)
    with pytest.raises(InputError, match="1 of 300 feature rows"):
        find_neighbours(np.where(np.arange(300)[:, None] == 4, np.nan, TRAIN), TEST, 3)


def test_faiss_works_after_torch_used_its_threads():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        torch.nn.functional.conv2d(torch.rand(8, 8, 64, 64), torch.rand(8, 8, 3, 3))
        assert find_neighbours(TRAIN, TEST, 3)[1].shape == (70, 3)
    finally:
        torch.set_num_threads(threads)
