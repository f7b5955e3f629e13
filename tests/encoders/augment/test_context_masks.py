"""I-JEPA's blocks: rectangles of the published sizes, one size a step, and a function of (seed, step) whoever asks."""

import numpy as np
import pytest

from encoders.augment.context_masks import ContextBlocks, block_size, draw_step

VIEW = ContextBlocks(rows=14, columns=14, batch=32)


def rectangle(tokens, columns):
    """(top, left, height, width) of the tokens of a block; fails if they are no full rectangle."""
    y, x = np.divmod(np.asarray(tokens), columns)
    top, left, height, width = y.min(), x.min(), np.ptp(y) + 1, np.ptp(x) + 1
    assert sorted(tokens) == sorted(columns * i + j for i in range(top, top + height) for j in range(left, left + width))
    return top, left, height, width


@pytest.mark.parametrize(("rows", "columns"), [(14, 14), (16, 12)])
def test_targets_of_a_step_are_rectangles_of_one_published_size(rows, columns):
    spec = VIEW.model_copy(update={"rows": rows, "columns": columns})
    sizes = set()
    for step in range(12):
        _, targets = draw_step(spec, 0, step, 0)
        assert targets.shape[:2] == (32, 4)
        found = {rectangle(block, columns)[2:] for image in targets for block in image}
        assert len(found) == 1
        sizes |= found
    assert len(sizes) > 3
    for height, width in sizes:  # rounding a side to whole patches changes the area by at most half a patch a side
        assert (height - 0.5) * (width - 0.5) < 0.2 * rows * columns
        assert (height + 0.5) * (width + 0.5) > 0.15 * rows * columns - 1
        assert (height - 0.5) / (width + 0.5) < 1.5
        assert (height + 0.5) / (width - 0.5) > 0.75


def squares_without(blocks, side, rows=14, columns=14):
    """Tokens of every square of this side that are in no block, each list ascending."""
    hidden = set(blocks.reshape(-1).tolist())
    for top in range(rows - side + 1):
        for left in range(columns - side + 1):
            tokens = [columns * (top + i) + left + j for i in range(side) for j in range(side)]
            yield [token for token in tokens if token not in hidden]


def test_a_context_is_a_square_without_the_targets_cut_to_the_shortest_of_the_step():
    lengths = set()
    for step in range(8):
        context, targets = draw_step(VIEW, 0, step, 0)
        length = context.shape[1]
        assert length >= 10
        complete = 0
        for seen, blocks in zip(context.tolist(), targets, strict=True):
            squares = [tokens for side in (13, 14) for tokens in squares_without(blocks, side)]
            fits = [tokens for tokens in squares if tokens[:length] == seen]
            assert fits
            complete += any(len(tokens) == length for tokens in fits)
        assert complete  # one image of the step keeps all of its context
        lengths.add(length)
    assert len(lengths) > 3


def test_blocks_touch_every_border():
    """The authors' code never places a block on the last row or column."""
    drawn = [draw_step(VIEW, 0, step, 0) for step in range(20)]
    counts = np.bincount(np.concatenate([targets.reshape(-1) for _, targets in drawn]), minlength=196).reshape(14, 14)
    assert counts.min() > 0
    assert counts[-1].sum() == pytest.approx(counts[0].sum(), rel=0.2)
    assert counts[:, -1].sum() == pytest.approx(counts[:, 0].sum(), rel=0.2)


def test_a_micro_batch_is_a_slice_of_its_step():
    context, targets = draw_step(VIEW, 5, 3, 0)
    for first, last in ((0, 32), (8, 12), (31, 32)):
        part = VIEW.draw(5, np.arange(3 * 32 + first, 3 * 32 + last), 0)
        assert (part.context.numpy() == context[first:last]).all()
        assert (part.targets.numpy() == targets[first:last]).all()


def test_seed_step_and_view_change_the_blocks():
    drawn = [VIEW.draw(seed, np.arange(32) + 32 * step, view) for seed, step, view in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert len({masks.targets.numpy().tobytes() for masks in drawn}) == 4


def test_positions_of_two_steps_are_refused():
    with pytest.raises(AssertionError, match="one step"):
        VIEW.draw(0, np.arange(30, 34), 0)


@pytest.mark.parametrize(("side", "targets"), [(4, 4), (2, 4), (3, 8)])
def test_a_view_too_small_for_all_targets_keeps_a_context(side, targets):
    """The targets are removed from it one fewer at a time, as far as needed."""
    spec = ContextBlocks(rows=side, columns=side, batch=16, targets=targets, target_scale=(0.4, 0.6), min_keep=min(10, side * side - 1))
    for step in range(4):
        context, drawn = draw_step(spec, 0, step, 0)
        height, width = block_size(spec, 0.85, 1.0)
        assert context.shape[1] >= min(spec.min_keep, height * width)
        assert drawn.shape[:2] == (16, targets)
