"""SimMIM's squares: whole, of the published number, and drawn for a position and nothing else."""

import numpy as np
import pytest

from encoders.augment.square_masks import RandomSquares, draw_squares


@pytest.mark.parametrize(
    ("rows", "columns", "side", "ratio", "squares"), [(14, 14, 2, 0.6, 30), (12, 12, 2, 0.6, 22), (6, 4, 1, 0.5, 12), (5, 5, 1, 0.6, 15)]
)
def test_whole_squares_of_the_published_number_are_hidden(rows, columns, side, ratio, squares):
    """ceil(0.6 * 49) = 30 at 224 px, ceil(0.6 * 36) = 22 at 192 px."""
    hidden = draw_squares(RandomSquares(rows=rows, columns=columns, side=side, ratio=ratio), 3, np.arange(6), 0)
    assert hidden.shape == (6, rows * columns)
    for mask in hidden.reshape(6, rows, columns):
        blocks = [mask[y : y + side, x : x + side] for y in range(0, rows, side) for x in range(0, columns, side)]
        assert all(block.all() or not block.any() for block in blocks)
        assert sum(block.all() for block in blocks) == squares


def test_squares_belong_to_seed_position_and_view_alone():
    spec = RandomSquares(rows=8, columns=8, side=2)
    together = draw_squares(spec, 1, np.array([7, 3, 900]), 0)
    assert (draw_squares(spec, 1, np.array([3]), 0)[0] == together[1]).all()
    assert (together[0] != together[1]).any()
    for seed, view in ((2, 0), (1, 1)):
        assert (draw_squares(spec, seed, np.array([3]), view)[0] != together[1]).any()


def test_every_square_is_hidden_equally_often():
    share = draw_squares(RandomSquares(rows=5, columns=5, side=1, ratio=0.4), 0, np.arange(20_000), 0).mean(axis=0)
    assert abs(share - 0.4).max() < 4 * np.sqrt(0.4 * 0.6 / 20_000)
