"""Random masks: a partition of the tokens, drawn for a position and nothing else."""

import numpy as np
import pytest

from encoders.augment.masks import draw_mask


@pytest.mark.parametrize(("n", "ratio", "kept"), [(196, 0.75, 49), (196, 0.9, 19), (100, 0.9, 10), (16, 0.0, 16), (64, 0.5, 32)])
def test_kept_and_masked_are_a_partition_of_the_published_size(n, ratio, kept):
    keep, hidden = draw_mask(1, np.arange(5), n, ratio)
    assert keep.shape == (5, kept)
    assert (np.sort(np.concatenate([keep, hidden], axis=1), axis=1) == np.arange(n)).all()


def test_a_mask_belongs_to_its_position_whatever_else_is_in_the_batch():
    keep, hidden = draw_mask(1, [7, 3, 900], 49, 0.75)
    alone = draw_mask(1, [3], 49, 0.75)
    assert (alone[0][0] == keep[1]).all()
    assert (alone[1][0] == hidden[1]).all()
    assert (keep[0] != keep[1]).any()


def test_seed_and_view_change_the_mask():
    masks = [draw_mask(seed, [0], 196, 0.75, view)[0].tolist() for seed, view in ((1, 0), (2, 0), (1, 1))]
    assert len({str(m) for m in masks}) == 3


def test_every_token_is_kept_equally_often():
    keep, _ = draw_mask(0, np.arange(20_000), 16, 0.75)
    share = np.bincount(keep.reshape(-1), minlength=16) / 20_000
    assert abs(share - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / 20_000)
