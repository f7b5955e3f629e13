"""The counter-based generator against the published vectors, and its independence of the batch."""

import numpy as np
import pytest

from encoders.runtime.random import Purpose, normal, permutation, philox, random_bits, uniform

# Random123, kat_vectors, philox4x32 with 10 rounds: counter, key, output.
KNOWN = [
    ([0, 0, 0, 0], (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, (0xFFFFFFFF, 0xFFFFFFFF), [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], (0xA4093822, 0x299F31D0), [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
]


@pytest.mark.parametrize(("counter", "key", "want"), KNOWN)
def test_philox_gives_the_published_vectors(counter, key, want):
    assert philox(np.array(counter, dtype=np.uint64), key).tolist() == want


def test_a_draw_does_not_depend_on_the_batch_it_is_drawn_in():
    whole = uniform(7, Purpose.CROP, np.arange(100), view=1, n=6)
    assert np.array_equal(whole[40:60], uniform(7, Purpose.CROP, np.arange(40, 60), view=1, n=6))
    assert np.array_equal(whole[:, :3], uniform(7, Purpose.CROP, np.arange(100), view=1, n=3))


@pytest.mark.parametrize("other", [(8, Purpose.CROP, 1), (7, Purpose.FLIP, 1), (7, Purpose.CROP, 2)])
def test_seed_purpose_and_view_each_change_every_draw(other):
    base, changed = random_bits(7, Purpose.CROP, np.arange(500), 1, 4), random_bits(other[0], other[1], np.arange(500), other[2], 4)
    assert (base == changed).mean() < 0.01


def test_positions_beyond_32_bits_are_their_own():
    low, high = random_bits(0, 0, [5], n=8), random_bits(0, 0, [5 + 2**32], n=8)
    assert (low == high).sum() == 0


def test_uniform_and_normal_have_their_moments():
    u, z = uniform(3, 1, np.arange(50_000), n=2), normal(3, 1, np.arange(50_000), n=2)
    assert abs(u.mean() - 0.5) < 0.005
    assert abs(u.var() - 1 / 12) < 0.002
    assert abs(z.mean()) < 0.01
    assert abs(z.var() - 1) < 0.02
    assert abs(np.corrcoef(z.T)[0, 1]) < 0.01


def test_permutations_are_complete_and_differ_by_epoch():
    first, second = permutation(0, Purpose.ORDER, 0, 1000), permutation(0, Purpose.ORDER, 1, 1000)
    assert sorted(first) == sorted(second) == list(range(1000))
    assert (first == second).mean() < 0.02
