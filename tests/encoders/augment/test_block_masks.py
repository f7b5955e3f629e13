"""Block masks: their share, shape and position, and what a device needs of them."""

import numpy as np
import pytest
import torch

from encoders.augment.block_masks import BlockMasks, BlockTokens, draw_block_masks, draw_rectangles
from encoders.augment.masks import Masks

PUBLISHED = BlockTokens(rows=14, columns=14)


def drawn(spec, positions, seed=1, view=0):
    return draw_block_masks(spec, seed, np.asarray(positions), view)


def test_half_of_the_crops_are_masked_by_ratios_between_the_published_ones():
    share = drawn(PUBLISHED, np.arange(4000)).mean(axis=1)
    masked = share[share > 0]
    assert abs(len(masked) / 4000 - 0.5) < 4 * np.sqrt(0.25 / 4000)
    assert masked.max() <= 0.5
    assert np.quantile(masked, 0.02) > 0.09  # of the lowest ratio a block may leave a patch or two
    assert abs(masked.mean() - 0.3) < 0.01
    assert np.allclose(np.quantile(masked, [0.25, 0.5, 0.75]), [0.2, 0.3, 0.4], atol=0.02)  # evenly spread


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_the_probability_is_that_of_a_crop(probability, share):
    spec = BlockTokens(rows=8, columns=6, probability=probability, ratio=(0.3, 0.3))
    hidden = drawn(spec, np.arange(300))
    assert (hidden.any(axis=1).mean()) == share
    assert hidden.sum(axis=1).max() <= int(48 * 0.3)


def test_a_mask_is_made_of_rectangles_larger_than_a_patch():
    """Hidden patches touch: of a random subset of this size far fewer neighbours would be hidden too."""
    spec = BlockTokens(rows=14, columns=14, probability=1.0, ratio=(0.2, 0.2))
    hidden = drawn(spec, np.arange(200)).reshape(200, 14, 14)
    pairs = (hidden[:, 1:] & hidden[:, :-1]).sum() + (hidden[:, :, 1:] & hidden[:, :, :-1]).sum()
    assert pairs / (2 * hidden.sum()) > 0.6  # 0.2 at random


def test_a_mask_belongs_to_its_position_whatever_else_is_in_the_batch():
    together, alone = drawn(PUBLISHED, [7, 3, 900, 12]), drawn(PUBLISHED, [900])
    assert (together[2] == alone[0]).all()
    halves = [drawn(PUBLISHED, part) for part in ([7, 3], [900, 12])]  # two ranks, or two micro-batches
    assert (np.concatenate(halves) == together).all()
    other = [drawn(PUBLISHED, np.arange(8), seed, view) for seed, view in ((1, 0), (2, 0), (1, 1))]
    assert len({part.tobytes() for part in other}) == 3


def test_only_the_first_views_are_masked():
    assert isinstance(PUBLISHED.draw(1, np.arange(4), 1), BlockMasks)
    local = PUBLISHED.draw(1, np.arange(4), 2)
    assert type(local) is Masks
    assert list(local) == []


def test_index_and_number_are_those_of_the_mask():
    masks = PUBLISHED.draw(1, np.arange(16), 0)
    assert masks.hidden.shape == (16, 196)
    assert torch.equal(masks.index, masks.hidden.flatten().nonzero()[:, 0])
    assert masks.number.tolist() == [int(own.sum()) for own in masks.hidden for _ in range(int(own.sum()))]
    assert (masks.index.dtype, masks.number.dtype) == (torch.int64, torch.int64)
    nothing = BlockTokens(rows=4, columns=4, probability=0.0).draw(1, np.arange(3), 0)
    assert (nothing.index.shape, nothing.number.shape) == ((0,), (0,))


def test_rectangles_stop_at_the_target_and_after_ten_that_do_not_fit():
    rng = np.random.default_rng(0)
    for target in (1, 3, 20, 98):
        numbers = rng.random((64, 4))
        assert 0 < draw_rectangles(14, 14, target, numbers).sum() <= target
    large = np.full((64, 4), 0.999)  # 1 / 0.3 times as high as wide, and as high as the room allows: never fits below 14 rows
    large[10:] = 0.5
    assert not draw_rectangles(14, 14, 98, large).any()
    large[9] = 0.5
    assert draw_rectangles(14, 14, 98, large).any()
