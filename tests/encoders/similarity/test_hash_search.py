"""The search for near hashes finds exactly the pairs that a loop over all pairs finds, whichever way it chooses."""

import numpy as np
import pytest

from encoders.similarity import hash_search
from encoders.similarity.hash_search import (
    BandPlan,
    choose_bands,
    expand_ranges,
    find_matches,
    find_near_pairs,
    find_nearest_few,
    group_equal,
    join_bands,
    scan_all,
)
from encoders.similarity.perceptual_hash import HASH_RADIUS


def bits(a, b):
    return int(np.unpackbits(a ^ b).sum())


def similar_hashes(n, rng, kinds=6, flipped=0.015):
    """(n, 32) hashes in clusters, as of similar images, with many ties."""
    centres = np.random.default_rng(7).integers(0, 256, (kinds, 32), dtype=np.uint8)
    noise = np.packbits(rng.random((n, 256)) < flipped * rng.random((n, 1)) * 2, axis=1)
    return centres[rng.integers(0, kinds, n)] ^ noise


def loop(a, b, radius):
    return sorted((i, j, d) for i in range(len(a)) for j in range(len(b)) if (d := bits(a[i], b[j])) <= radius)


def listed(matches):
    return sorted((int(i), int(j), int(d)) for pairs, far in matches for (i, j), d in zip(pairs, far, strict=True))


@pytest.fixture(params=["scan", "bands"])
def way(request, monkeypatch):
    """Each test runs both ways: comparing all pairs, and by sets of bands."""
    if request.param == "bands":
        monkeypatch.setattr(hash_search, "choose_bands", lambda queries, indexed, radius: BandPlan(radius + 2, 2))
    return request.param


@pytest.mark.parametrize("radius", [0, 5, 8, 20])
def test_near_pairs_equal_a_loop_over_all_pairs(radius, way):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (40, 32), dtype=np.uint8)
    a[7], a[9] = a[3], a[4] ^ np.eye(1, 32, 0, dtype=np.uint8)[0] * 7  # identical; three bits apart
    want = sorted((bits(a[i], a[j]), i, j) for i in range(40) for j in range(i + 1, 40) if bits(a[i], a[j]) <= radius)
    pairs, distance = find_near_pairs(a, radius=radius)
    assert [(d, i, j) for (i, j), d in zip(pairs.tolist(), distance.tolist(), strict=True)] == want
    across, _ = find_near_pairs(a[:10], a[10:], radius=radius)
    assert sorted(map(tuple, across.tolist())) == sorted((i, j) for i in range(10) for j in range(30) if bits(a[i], a[10 + j]) <= radius)


@pytest.mark.parametrize(("n", "m"), [(30, 90), (90, 30)])
@pytest.mark.parametrize("max_matches", [1, 3, 100])
def test_the_nearest_few_equal_a_loop_for_any_sizes_and_chunks(n, m, max_matches, way, monkeypatch):
    monkeypatch.setattr(hash_search, "SCAN_CHUNK", 7)
    monkeypatch.setattr(hash_search, "JOIN_CHUNK", 5)
    monkeypatch.setattr(hash_search, "JOIN_QUERIES", 11)
    rng = np.random.default_rng(1)
    a, b = similar_hashes(n, rng), similar_hashes(m, rng)
    a[5:9], b[3], b[20:23] = a[4], a[4], b[1]  # equal hashes within and across the sides
    want = []
    for i in range(n):
        want += sorted((bits(a[i], b[j]), j, i) for j in range(m) if bits(a[i], b[j]) <= HASH_RADIUS)[:max_matches]
    pairs, distance = find_nearest_few(a, b, max_matches=max_matches)
    assert [(d, j, i) for (i, j), d in zip(pairs.tolist(), distance.tolist(), strict=True)] == want
    assert len(want) > n / 2


@pytest.mark.parametrize("agreeing", [1, 2, 3])
@pytest.mark.parametrize("radius", [0, 3, 8])
def test_every_plan_of_bands_reports_each_pair_of_a_loop_once(agreeing, radius):
    rng = np.random.default_rng(agreeing)
    a, b = similar_hashes(70, rng), similar_hashes(50, rng)
    a[0] = b[0]
    want = loop(a, b, radius)
    assert want
    assert listed(join_bands(a, b, radius, BandPlan(radius + agreeing, agreeing))) == want
    assert listed(scan_all(a, b, radius)) == want


def test_differences_of_exactly_the_radius_are_found_wherever_the_bits_are():
    """The bound of the bands is sharp: as many bands as possible are spoiled, one bit in each."""
    rng = np.random.default_rng(4)
    masks = np.unpackbits(np.ascontiguousarray(hash_search.band_masks(10)).view(np.uint8), axis=1)  # (bands, 256)
    a = rng.integers(0, 256, (60, 32), dtype=np.uint8)
    for spoiled in (range(8), range(2, 10), (0, 1, 2, 3, 5, 6, 8, 9)):
        flips = np.zeros((60, 256), np.uint8)
        for k in spoiled:
            flips[np.arange(60), [rng.choice(np.flatnonzero(masks[k])) for _ in range(60)]] = 1
        found = listed(join_bands(a ^ np.packbits(flips, axis=1), a, 8, BandPlan(10, 2)))
        assert found == [(i, i, 8) for i in range(60)]


def test_many_alike_hashes_are_compared_with_all_and_scattered_ones_by_bands():
    rng = np.random.default_rng(5)
    scattered = rng.integers(0, 256, (20_000, 32), dtype=np.uint8)
    assert choose_bands(scattered, scattered, HASH_RADIUS) is not None
    alike = np.zeros((20_000, 32), np.uint8)
    alike[np.arange(20_000), rng.integers(0, 32, 20_000)] = rng.integers(0, 256, 20_000)
    assert choose_bands(alike, alike, HASH_RADIUS) is None
    assert choose_bands(scattered[:100], scattered[:100], HASH_RADIUS) is None, "too few to be worth an estimate"
    assert choose_bands(scattered, scattered, 200) is None, "too few bits for so many bands"


def test_thousands_of_equal_hashes_have_few_pairs():
    blank = np.zeros((5000, 32), np.uint8)
    pairs, far = find_nearest_few(blank, blank, max_matches=2)
    assert pairs.tolist() == [[i, j] for i in range(5000) for j in range(2)]
    assert not far.any()


def test_groups_are_of_equal_hashes_even_if_their_names_collide(monkeypatch):
    rng = np.random.default_rng(6)
    hashes = similar_hashes(50, rng, flipped=0.002)
    for name in (hash_search.join_keys, lambda banded, members: banded[0] % 3):
        monkeypatch.setattr(hash_search, "join_keys", name)
        distinct, rows = group_equal(hashes)
        groups = [rows.rows[a:b].tolist() for a, b in zip(rows.starts[:-1], rows.starts[1:], strict=True)]
        want = {}
        for i, h in enumerate(hashes):
            want.setdefault(h.tobytes(), []).append(i)
        assert groups == list(want.values())
        assert [h.tobytes() for h in distinct] == list(want)


def test_ranges_longer_than_a_chunk_are_kept_whole(monkeypatch):
    monkeypatch.setattr(hash_search, "JOIN_CHUNK", 4)
    rows, first, last = np.array([3, 5, 9, 11]), np.array([0, 2, 2, 8]), np.array([2, 2, 8, 10])
    parts = list(expand_ranges(rows, first, last))
    got = [(int(i), int(j)) for part in parts for i, j in zip(*part, strict=True)]
    assert got == [(3, 0), (3, 1), *((9, j) for j in range(2, 8)), (11, 8), (11, 9)]
    assert len(parts) > 1


def test_no_images_have_no_pairs():
    none, some = np.empty((0, 32), np.uint8), np.zeros((3, 32), np.uint8)
    pairs, distance = find_near_pairs(none)
    assert pairs.shape == (0, 2)
    assert distance.shape == (0,)
    for a, b in ((none, some), (some, none)):
        assert list(find_matches(a, b, HASH_RADIUS)) == []
        assert find_nearest_few(a, b)[0].shape == (0, 2)
