"""Partners of an image for the second view, against a search over all pairs."""

import numpy as np
import pytest
import torch

from encoders.augment import Augment
from encoders.loading.pairing import adjacent_tile_partners, same_group_partners
from tests.encoders.loading.test_batches import InMemory, batches, joined, same, taken

PATIENTS = np.array(["a", "b", "a", "", "c", "b", "a", "", "b", "d"])


def drawn(partners, rows, times=400):
    """For each row, the set of its partners over many draws."""
    rows = np.asarray(rows)
    draws = [partners.sample(rows, np.arange(len(rows)) + t * len(rows), seed=3) for t in range(times)]
    return [set(column.tolist()) for column in np.array(draws).T]


def test_partners_are_all_others_of_the_group_among_the_rows_in_use():
    rows = np.array([0, 1, 2, 3, 4, 5, 7, 9])  # 6 and 8 are, for example, in the test part
    got = drawn(same_group_partners(PATIENTS, rows), rows)
    for row, found in zip(rows, got, strict=True):
        want = {int(r) for r in rows if r != row and PATIENTS[r] == PATIENTS[row] and PATIENTS[row]}
        assert found == (want or {int(row)}), row
    assert same_group_partners(PATIENTS, rows).paired_share == 0.5


def test_all_others_are_equally_likely_and_the_draw_is_a_function_of_seed_and_position():
    many = same_group_partners(np.array(["x"] * 4), np.arange(4))
    one = many.sample(np.zeros(6000, dtype=int), np.arange(6000), seed=1)
    counts = np.bincount(one, minlength=4)
    assert counts[0] == 0
    assert (abs(counts[1:] - 2000) < 5 * np.sqrt(6000 * 2 / 9)).all()
    assert (many.sample(np.zeros(5, dtype=int), np.arange(5) + 100, seed=1) == one[100:105]).all()
    assert (many.sample(np.zeros(6000, dtype=int), np.arange(6000), seed=2) != one).any()


def test_neighbours_are_the_tiles_that_touch_on_the_same_slide():
    rng = np.random.default_rng(0)
    places = [(s, x * 512 + (s == "t"), y * 512) for s in ("s", "t") for x in range(5) for y in range(4) if rng.random() < 0.8]
    slides, x, y = (np.array(column) for column in zip(*rng.permutation(np.array(places, dtype=object)), strict=True))
    x, y = x.astype(int), y.astype(int)
    rows = np.sort(rng.choice(len(slides), len(slides) - 3, replace=False))
    for row, found in zip(rows, drawn(adjacent_tile_partners(slides, x, y, rows), rows, 600), strict=True):
        near = {int(r) for r in rows if slides[r] == slides[row] and max(abs(x[r] - x[row]), abs(y[r] - y[row])) == 512}
        assert found == (near or {int(row)}), row


def test_a_tile_alone_on_its_slide_and_tiles_without_a_slide_have_no_partner():
    rows = np.arange(3)
    partners = adjacent_tile_partners(np.array(["s", "", ""]), np.zeros(3), np.zeros(3), rows)
    assert partners.paired_share == 0
    assert (partners.sample(rows, rows, 0) == rows).all()


@pytest.mark.parametrize("more", [{"workers": 2}, {"accumulate": 2}])
def test_every_other_view_shows_the_partner_for_any_workers_and_accumulation(more):
    store, plain = InMemory(16, 32), [Augment()] * 3
    partners = same_group_partners(np.arange(16) // 4, np.arange(16))
    first, second, third, index, positions = joined(taken(batches(store, plain, partners=partners), [0, 1]))
    alone = joined(taken(batches(store, plain), [0, 1]))
    assert torch.equal(first, alone[0])
    assert torch.equal(third, alone[2])
    others = partners.sample(index.numpy(), positions.numpy(), 5)
    assert (others != index.numpy()).all()
    assert (others // 4 == index.numpy() // 4).all()
    torch.testing.assert_close(second[:, 0] * 0.25 + 0.5, torch.from_numpy(store.pixels[others, ..., 0]), atol=1e-5, rtol=0)
    assert same(joined(taken(batches(store, plain, partners=partners, **more), [0, 1])), [first, second, third, index, positions])
