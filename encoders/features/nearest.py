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


def find_neighbours(
    train: NDArray[np.floating], test: NDArray[np.floating], k: int, ranks: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Cosine similarities (M, K), largest first, and indices (M, K) of the K rows of `train` closest to each row of `test`.

    train: (N, D).  test: (M, D).  Rows of zeros have similarity 0 to every row.  ranks: all ranks of a gloo process group call this with
    the same arrays and share the search; the result is bit-identical to that of a single process.  Raises InputError unless 1 <= k <= N,
    for different widths, and for rows with NaN or inf."""
    if not 1 <= k <= len(train):
        raise InputError(f"k is {k} for {len(train)} rows; choose k from 1 to {len(train)}")
    if train.shape[1:] != test.shape[1:]:
        raise InputError(
            f"rows of width {train.shape[1:]} cannot be compared with rows of width {test.shape[1:]}: they come from different encoders"
        )
    index = faiss.IndexFlatIP(train.shape[1])
    index.add(l2_normalize(train))
    starts = range(0, len(test), QUERY_CHUNK)
    results = [index.search(l2_normalize(test[i : i + QUERY_CHUNK]), k) for i in (take_rank_pieces(starts) if ranks else starts)]
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


def l2_normalize(x: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of unit length, float32; rows of zeros stay zero. Raises InputError for rows with NaN or inf."""
    x = np.ascontiguousarray(x, dtype=np.float32)
    if not np.isfinite(x).all():
        raise InputError(f"{int((~np.isfinite(x).all(1)).sum())} of {len(x)} feature rows contain NaN or inf: the encoder is damaged")
    length = np.linalg.norm(x, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(x, np.where(length > 0, length, 1), dtype=np.float32)
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
