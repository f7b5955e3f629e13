"""Searches for perceptual hashes that differ in at most `radius` bits: exact, and nearly linear in the number of hashes.

The bits are divided into bands. Hashes that differ in at most `radius` bits agree in all bits of at least `bands - radius` bands, so only
pairs that agree in such a set of bands are compared (multi-index hashing). Several bands at once are needed, because the hashes of
radiographs agree in many bits: a single band of 28 bits leaves more pairs than a processor compares in the time that it saves.

Hashes of blank or very similar images agree in most bands. The number of pairs is therefore estimated first, and where it is no gain, all
hashes are compared with all (faiss). Both ways return the same pairs.

Source: Norouzi, Punjani, Fleet 2012 (arXiv:1307.2982), with sets of bands in place of single bands.

Shapes: N, M hashes of 256 bits as (N, 32) uint8; P pairs; W = 4 words of 64 bits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import Array, IntArray
from encoders.similarity.perceptual_hash import HASH_BITS, HASH_RADIUS, Hashes

Words = NDArray[np.uint64]
Matches = tuple[IntArray, IntArray]  # pairs (p, 2) and distances (p,)

SCAN_CHUNK = 4096  # queries per search of all pairs: bounds the matches in a corpus of similar images to a few hundred MB
JOIN_CHUNK, JOIN_QUERIES = 1 << 20, 1 << 20  # pairs that are compared at once; queries whose keys are in memory at once
SAMPLE, SAMPLE_SETS = 4096, 5  # queries and sets of bands from which the cost of the bands is estimated
# Cost on one core of a 2020s server processor. Only their ratios matter, and only for which way is chosen.
SCAN_NS, COMPARE_NS, QUERY_KEY_NS, INDEX_KEY_NS = 1.1, 60.0, 10.0, 80.0
SCAN_ANYWAY_NS = 5e7  # below this, the estimate costs more than it can save
AGREEING_BANDS = (1, 2, 3)  # each adds a band, makes the sets more numerous, and leaves fewer pairs to compare
MAX_BANDS = 34


def find_near_pairs(a: Hashes, b: Hashes | None = None, radius: int = HASH_RADIUS) -> Matches:
    """Pairs (P, 2) of rows of `a` (N, 32) and of `b` (M, 32) that differ in at most `radius` bits, and their distances (P,).

    Without `b`: pairs i < j within `a`. Ordered by distance, then by row."""
    matches = list(find_matches(a, a if b is None else b, radius))
    if not matches:
        return np.empty((0, 2), np.int64), np.empty(0, np.int64)
    pairs, far = np.concatenate([p for p, _ in matches]), np.concatenate([d for _, d in matches])
    if b is None:
        once = pairs[:, 0] < pairs[:, 1]
        pairs, far = pairs[once], far[once]
    order = np.lexsort((pairs[:, 1], pairs[:, 0], far))
    return pairs[order], far[order]


def find_nearest_few(a: Hashes, b: Hashes, radius: int = HASH_RADIUS, max_matches: int = 8) -> Matches:
    """As `find_near_pairs`, but with at most the `max_matches` nearest rows of `b` for each row of `a`, so that a thousand blank images do
    not become a million pairs.

    Ordered by row of `a`, then by distance, then by row of `b`."""
    distinct_a, rows_a = group_equal(a)
    distinct_b, rows_b = group_equal(b)
    groups, far = np.empty((0, 2), np.int64), np.empty(0, np.int64)
    for more, distance in find_matches(distinct_a, distinct_b, radius):
        groups, far = keep_nearest(np.concatenate([groups, more]), np.concatenate([far, distance]), max_matches)
    # Every group has a row, and groups are ordered by their first row, so the nearest rows are in the nearest groups.
    pairs, far = expand_groups(groups[:, ::-1], far, rows_b, max_matches)
    pairs, far = keep_nearest(pairs[:, ::-1], far, max_matches)
    pairs, far = expand_groups(pairs, far, rows_a, len(a))
    return keep_nearest(pairs, far, max_matches)


def keep_nearest(pairs: IntArray, far: IntArray, max_matches: int) -> Matches:
    """The `max_matches` nearest pairs of each first row, ordered by first row, distance and second row."""
    order = np.lexsort((pairs[:, 1], far, pairs[:, 0]))
    pairs, far = pairs[order], far[order]
    first = np.searchsorted(pairs[:, 0], pairs[:, 0])  # where each row's pairs begin
    kept = np.arange(len(pairs)) - first < max_matches
    return pairs[kept], far[kept]


@dataclass(frozen=True)
class GroupedRows:
    """rows: (N,) ordered by group.  starts: (G + 1,) where each group begins in `rows`."""

    rows: IntArray
    starts: IntArray


def group_equal(hashes: Hashes) -> tuple[Hashes, GroupedRows]:
    """The distinct hashes in order of their first row, and the rows of each."""
    names = join_keys(mix_bands(hashes, 1), (0,))
    _, first, group = np.unique(names, return_index=True, return_inverse=True)
    if (to_words(hashes) != to_words(hashes[first])[group]).any():  # two hashes with the same 64-bit name
        _, first, group = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    by_row = np.argsort(first)
    rank = np.empty(len(first), np.int64)
    rank[by_row] = np.arange(len(first))
    group = rank[group.ravel()]
    return hashes[first[by_row]], GroupedRows(np.argsort(group, kind="stable"), np.searchsorted(np.sort(group), np.arange(len(first) + 1)))


def expand_groups(pairs: IntArray, far: IntArray, groups: GroupedRows, most: int) -> Matches:
    """The pairs with each first element, a group, replaced by at most the first `most` of its rows."""
    begin = groups.starts[pairs[:, 0]]
    counts = np.minimum(groups.starts[pairs[:, 0] + 1] - begin, most)
    position = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(begin, counts)
    return np.stack([groups.rows[position], np.repeat(pairs[:, 1], counts)], axis=1), np.repeat(far, counts)


def find_matches(a: Hashes, b: Hashes, radius: int) -> Iterator[Matches]:
    """Every pair of rows within the radius once, with its distance, in chunks. Exact, whichever way is chosen.

    The smaller side is indexed, because it fits the processor's cache, and the larger one is searched for."""
    if not len(a) or not len(b):
        return
    swapped = len(a) < len(b)
    queries, indexed = (b, a) if swapped else (a, b)
    plan = choose_bands(queries, indexed, radius)
    for pairs, distance in scan_all(queries, indexed, radius) if plan is None else join_bands(queries, indexed, radius, plan):
        yield (pairs[:, ::-1] if swapped else pairs), distance


def scan_all(queries: Hashes, indexed: Hashes, radius: int) -> Iterator[Matches]:
    """The matches, by comparing every pair."""
    import faiss

    bank = faiss.IndexBinaryFlat(HASH_BITS)
    bank.add(np.ascontiguousarray(indexed))
    for start in range(0, len(queries), SCAN_CHUNK):
        # range_search returns distances strictly below its radius
        limits, distance, matches = bank.range_search(np.ascontiguousarray(queries[start : start + SCAN_CHUNK]), radius + 1)
        rows = start + np.repeat(np.arange(len(limits) - 1), np.diff(limits.astype(np.int64)).astype(np.int64))
        if len(rows):
            yield np.stack([rows, matches.astype(np.int64)], axis=1), distance.astype(np.int64)


@dataclass(frozen=True)
class BandPlan:
    """`bands` groups of bits, of which `agreeing` must be equal."""

    bands: int
    agreeing: int

    @property
    def sets(self) -> list[tuple[int, ...]]:
        return list(combinations(range(self.bands), self.agreeing))


def choose_bands(queries: Hashes, indexed: Hashes, radius: int) -> BandPlan | None:
    """The cheapest plan, as estimated from a sample of the queries; None where comparing all pairs is cheaper."""
    best, plan = SCAN_NS * len(queries) * len(indexed), None
    if best < SCAN_ANYWAY_NS:
        return None
    rng = np.random.default_rng(0)
    sample = queries[rng.choice(len(queries), min(SAMPLE, len(queries)), replace=False)]
    for agreeing in AGREEING_BANDS:
        candidate = BandPlan(radius + agreeing, agreeing)
        keys_ns = len(candidate.sets) * (QUERY_KEY_NS * len(queries) + INDEX_KEY_NS * len(indexed))
        if candidate.bands > MAX_BANDS or keys_ns > best:
            continue
        of_sample, of_indexed = mix_bands(sample, candidate.bands), mix_bands(indexed, candidate.bands)
        tried = [candidate.sets[i] for i in rng.choice(len(candidate.sets), min(SAMPLE_SETS, len(candidate.sets)), replace=False)]
        pairs = sum(int(np.diff(locate_keys(join_keys(of_sample, s), np.sort(join_keys(of_indexed, s))), axis=0).sum()) for s in tried)
        cost = keys_ns + COMPARE_NS * pairs * (len(queries) / len(sample)) * (len(candidate.sets) / len(tried))
        if cost < best:
            best, plan = cost, candidate
    return plan


def join_bands(queries: Hashes, indexed: Hashes, radius: int, plan: BandPlan) -> Iterator[Matches]:
    """The matches, by comparing the pairs that agree in a set of bands."""
    of_indexed, words = mix_bands(indexed, plan.bands), to_words(indexed)  # (bands, M), (M, W)
    for start in range(0, len(queries), JOIN_QUERIES):
        part = queries[start : start + JOIN_QUERIES]
        of_part, part_words = mix_bands(part, plan.bands), to_words(part)
        for members in plan.sets:
            for i, j in join_equal(join_keys(of_part, members), join_keys(of_indexed, members)):
                distance = np.bitwise_count(part_words[i] ^ words[j]).sum(axis=1, dtype=np.int64)
                near = distance <= radius
                i, j, distance = i[near], j[near], distance[near]
                own = is_first_set(of_part[:, i] == of_indexed[:, j], members)  # otherwise another set reports the pair
                if own.any():
                    yield np.stack([start + i[own], j[own]], axis=1), distance[own]


def is_first_set(agree: NDArray[np.bool_], members: tuple[int, ...]) -> NDArray[np.bool_]:
    """(p,) whether `members` are the first bands in which a pair agrees.  agree: (bands, p)."""
    rank = np.cumsum(agree, axis=0)
    return np.asarray(np.all([agree[k] & (rank[k] == n) for n, k in enumerate(members, start=1)], axis=0))


def join_equal(keys: Words, indexed: Words) -> Iterator[tuple[IntArray, IntArray]]:
    """Rows i of `keys` and j of `indexed` with equal keys, in chunks."""
    order = np.argsort(indexed)
    ordered = indexed[order]
    rows = np.flatnonzero(may_contain(keys, ordered))
    for i, position in expand_ranges(rows, *locate_keys(keys[rows], ordered)):
        yield i, order[position]


def expand_ranges(rows: IntArray, first: IntArray, last: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """Each row with every position from its `first` to before its `last`, in chunks of about JOIN_CHUNK pairs."""
    ends = np.cumsum(last - first)
    start = before = 0
    while start < len(rows):
        stop = max(int(np.searchsorted(ends, before + JOIN_CHUNK, side="right")), start + 1)
        before, counts = int(ends[stop - 1]), (last - first)[start:stop]
        offset = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        yield np.repeat(rows[start:stop], counts), np.repeat(first[start:stop], counts) + offset
        start = stop


def locate_keys(keys: Words, ordered: Words) -> IntArray:
    """(2, N) where the run of each key begins and ends in `ordered`."""
    return np.stack([np.searchsorted(ordered, keys, side="left"), np.searchsorted(ordered, keys, side="right")])


def may_contain(keys: Words, ordered: Words) -> NDArray[np.bool_]:
    """(N,) False for keys that are certainly not in `ordered`: a table of the lowest bits, which fits the cache."""
    bits = max(len(ordered).bit_length() + 4, 10)
    mask = np.uint64(2**bits - 1)
    table = np.zeros(2**bits, bool)
    table[ordered & mask] = True
    return np.asarray(table[keys & mask])


def join_keys(banded: Words, members: tuple[int, ...]) -> Words:
    """(N,) one key for the values of several bands."""
    return np.asarray(np.bitwise_xor.reduce(banded[list(members)], axis=0))


def mix_bands(hashes: Hashes, bands: int) -> Words:
    """(bands, N) a number for the bits of each band. Equal bits give equal numbers; the others may collide, since all pairs are compared.

    Neighbouring bits are correlated, so that each band takes bits from the whole hash."""
    words = to_words(hashes)
    out = np.zeros((bands, len(words)), np.uint64)
    for k, masks in enumerate(band_masks(bands)):
        for w, mask in enumerate(masks):
            # Every word of every band has its own constants, so that the numbers of several bands can be combined by xor.
            out[k] = scramble(out[k] + (words[:, w] & mask) + np.uint64(0x9E3779B97F4A7C15 * (4 * k + w + 1) % 2**64))
    return out


@cache
def band_masks(bands: int) -> Words:
    """(bands, W) the bits of each band: bit i of a random order belongs to band i mod `bands`."""
    order = np.random.default_rng(0).permutation(HASH_BITS)
    bits = np.zeros((bands, HASH_BITS), np.uint8)
    bits[np.arange(HASH_BITS) % bands, order] = 1
    return to_words(np.packbits(bits, axis=1))


def scramble(x: Words) -> Words:
    """The finaliser of splitmix64: every bit of the result depends on every bit of x."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def to_words(hashes: Array) -> Words:
    """(N, 4) the 256 bits as words."""
    return np.ascontiguousarray(hashes, np.uint8).view(np.uint64).reshape(-1, HASH_BITS // 64)
