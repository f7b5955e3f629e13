"""Exact nearest neighbours by cosine similarity, and the votes of neighbours.

Shapes: N rows searched, M query rows, D width, K neighbours, C classes or labels.
"""

import faiss
import numpy as np
import torch
from einops import einsum, rearrange
from numpy.typing import NDArray

from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.shard_work import gather_pieces, take_rank_pieces

QUERY_CHUNK = 4096  # query rows per search: bounds memory at QUERY_CHUNK x K without a loss of speed
BLOCK_BYTES = 32 * 2**20  # of temporary arrays
PAIR_BYTES = 2**20  # of pairs of rows in float64; fits into the cache
# Similarities of float32 products are within 6 eps of the exact ones at widths from 16 to 2,048: two that are closer than this may be tied.
DOUBTFUL_GAP = 16 * float(np.finfo(np.float32).eps)
TIED_DECIMALS = 12  # similarities in float64 that are equal to so many decimals are tied; their rounding is 1e-15
SPARE_NEIGHBOURS = (16, 256)  # fetched beyond K to find all ties of the last one; where these do not suffice, all rows are compared


def find_neighbours(
    train: NDArray[np.floating], test: NDArray[np.floating], k: int, ranks: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Cosine similarities (M, K), largest first, and indices (M, K) of the K rows of `train` closest to each row of `test`.

    Of equally similar rows the first of `train` comes first, also where the K-th is tied. Sort `train` by a property of its rows, and the
    result does not depend on their order.

    train: (N, D).  test: (M, D).  Rows of zeros have similarity 0 to every row.  ranks: all ranks of a gloo process group call this with
    the same arrays and share the search; the result is bit-identical to that of a single process.  Raises InputError unless 1 <= k <= N,
    for different widths, and for rows with NaN or inf."""
    if not 1 <= k <= len(train):
        raise InputError(f"k is {k} for {len(train)} rows; choose k from 1 to {len(train)}")
    if train.shape[1:] != test.shape[1:]:
        raise InputError(
            f"rows of width {train.shape[1:]} cannot be compared with rows of width {test.shape[1:]}: they come from different encoders"
        )
    unit = l2_normalize(train)
    starts = range(0, len(test), QUERY_CHUNK)
    results = [_search_chunk(train, unit, test[i : i + QUERY_CHUNK], k) for i in (take_rank_pieces(starts) if ranks else starts)]
    similarity, near = np.empty((len(test), k), np.float32), np.empty((len(test), k), np.int64)
    for out, parts in ((similarity, [s for s, _ in results]), (near, [n for _, n in results])):
        _fill_chunks(out, parts, ranks)
    return similarity, near


def _fill_chunks(out: Array, parts: list[Array], ranks: bool) -> None:
    """Writes the chunks to `out`, one after the other.  ranks: those of all ranks."""
    at = 0
    for x in (x.numpy() for x in gather_pieces(map(torch.from_numpy, parts), QUERY_CHUNK, len(out))) if ranks else parts:
        out[at : at + len(x)] = x
        at += len(x)


def _search_chunk(
    train: NDArray[np.floating], unit: NDArray[np.float32], test: NDArray[np.floating], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Similarities and indices (M, K) of some query rows. unit: (N, D) `train` at unit length."""
    queries = l2_normalize(test)
    similarity, near = np.empty((len(test), k), np.float32), np.empty((len(test), k), np.int64)
    todo = np.arange(len(test))
    for spare in SPARE_NEIGHBOURS:
        if not len(todo):
            return similarity, near
        fetched = min(len(unit), k + spare)
        s, i = faiss.knn(queries[todo], unit, fetched, metric=faiss.METRIC_INNER_PRODUCT)
        known = np.full(len(todo), True) if fetched == len(unit) else s[:, -1] < s[:, k - 1] - DOUBTFUL_GAP
        ordered, i = _order_ties(train, test[todo[known]], s[known], i[known])
        similarity[todo[known]], near[todo[known]] = ordered[:, :k], i[:, :k]
        todo = todo[~known]
    step = max(1, BLOCK_BYTES // (8 * len(train)))
    for at in range(0, len(todo), step):
        some = todo[at : at + step]
        exact = _exact_similarities(train, test[some])
        near[some] = np.argsort(-exact, axis=1, kind="stable")[:, :k]
        similarity[some] = np.take_along_axis(exact, near[some], axis=1)
    return similarity, near


def _order_ties(
    train: NDArray[np.floating], test: NDArray[np.floating], similarity: NDArray[np.float32], near: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sorted neighbours (M, F) with runs of doubtful similarities computed again in float64, and tied ones in the order of `train`."""
    close = similarity[:, :-1] - similarity[:, 1:] <= DOUBTFUL_GAP
    doubtful = np.zeros(similarity.shape, dtype=bool)
    doubtful[:, :-1] |= close
    doubtful[:, 1:] |= close
    exact = similarity.astype(np.float64)
    row, column = np.nonzero(doubtful)
    step = max(1, PAIR_BYTES // (16 * train.shape[1]))
    products = np.empty((3, len(row)))  # a.b, a.a, b.b
    for at in range(0, len(row), step):
        some = slice(at, at + step)
        a, b = train[near[row[some], column[some]]].astype(np.float64), test[row[some]].astype(np.float64)
        for out, (x, y) in zip(products, ((a, b), (a, a), (b, b)), strict=True):
            np.einsum("nd,nd->n", x, y, out=out[some])
    exact[row, column] = _cosine(*products)
    left, right = exact[:, :-1], exact[:, 1:]
    changed = np.flatnonzero(((left < right) | ((left == right) & (near[:, :-1] > near[:, 1:]))).any(axis=1))
    order = np.lexsort((near[changed], -exact[changed]), axis=-1)
    exact[changed] = np.take_along_axis(exact[changed], order, axis=1)
    near[changed] = np.take_along_axis(near[changed], order, axis=1)
    return exact, near


def _exact_similarities(train: NDArray[np.floating], test: NDArray[np.floating]) -> NDArray[np.float64]:
    """(M, N) float64 cosine similarities, rounded so that ties are equal."""
    queries = test.astype(np.float64)
    out = np.empty((len(test), len(train)))
    step = max(1, BLOCK_BYTES // (8 * train.shape[1]))
    for at in range(0, len(train), step):
        rows = train[at : at + step].astype(np.float64)
        squares = np.einsum("nd,nd->n", rows, rows), np.einsum("nd,nd->n", queries, queries)
        out[:, at : at + step] = _cosine(queries @ rows.T, squares[0], squares[1][:, None])
    return out


def _cosine(product: NDArray[np.float64], square_a: NDArray[np.float64], square_b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Similarities from inner products and squared lengths; 0 for rows of zeros."""
    length = np.sqrt(square_a * square_b)
    cosine: NDArray[np.float64] = np.round(product / np.where(length > 0, length, 1), TIED_DECIMALS)
    return cosine


def l2_normalize(x: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of unit length, float32; rows of zeros stay zero. Raises InputError for rows with NaN or inf."""
    unit = np.empty(x.shape, np.float32)
    wrong, step = 0, max(1, BLOCK_BYTES // (4 * max(x.shape[1], 1)))
    for at in range(0, len(x), step):
        rows = np.ascontiguousarray(x[at : at + step], dtype=np.float32)
        wrong += int((~np.isfinite(rows).all(axis=1)).sum())
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        np.divide(rows, np.where(length > 0, length, 1), out=unit[at : at + step], dtype=np.float32)
    if wrong:
        raise InputError(f"{wrong} of {len(x)} feature rows contain NaN or inf: the encoder is damaged")
    return unit


def vote_shares(weight: NDArray[np.floating], labels: NDArray[np.floating], index: NDArray[np.integer]) -> NDArray[np.float64]:
    """(M, C) weighted fraction of positive neighbours, over the neighbours whose label is known; NaN if no label is known.

    weight: (M, K) non-negative.  labels: (N, C) in {0, 1}, NaN = unknown.  index: (M, K) rows of `labels`."""
    scores = np.empty((len(index), labels.shape[1]))
    for i in range(0, len(index), QUERY_CHUNK):
        votes = labels[index[i : i + QUERY_CHUNK]]  # (m, K, C)
        known = ~np.isnan(votes)
        w = rearrange(np.asarray(weight[i : i + QUERY_CHUNK], np.float64), "m k -> m k 1") * known
        with np.errstate(invalid="ignore"):  # 0 / 0 if no label is known
            scores[i : i + QUERY_CHUNK] = einsum(w, np.where(known, votes, 0.0), "m k c, m k c -> m c") / w.sum(1)
    return scores
