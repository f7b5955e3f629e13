"""Exact nearest neighbours by cosine, and the votes of neighbours.

Shapes: N rows searched, M rows asked about, D width, K neighbours, C classes or labels.
"""

from typing import Any

import faiss
import numpy as np
import torch
from einops import einsum, rearrange
from numpy.typing import NDArray

from encoders.runtime.errors import InputError
from encoders.runtime.shard_work import gather_pieces, take_rank_pieces

QUERY_CHUNK = 4096  # rows asked about at a time: bounds memory at CHUNK x K, and costs no speed


def find_neighbours(
    train: NDArray[np.floating], test: NDArray[np.floating], k: int, ranks: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Cosine similarity (M, K), largest first, and row in `train` (M, K) of the K rows closest to each row of `test`.

    train: (N, D).  test: (M, D).  Rows of zeros are similar to nothing (0).  ranks: all ranks of a gloo process group call this with
    the same arrays, share the search, and get the same bits as one process.  Raises InputError if k > N, or for widths that differ."""
    if not 1 <= k <= len(train):
        raise InputError(f"{k} neighbours were asked for among {len(train)} rows; choose k from 1 to {len(train)}")
    if train.shape[1:] != test.shape[1:]:
        raise InputError(
            f"rows of width {train.shape[1:]} cannot be compared with rows of width {test.shape[1:]}: they are of unlike encoders"
        )
    index = faiss.IndexFlatIP(train.shape[1])
    index.add(l2_normalize(train))
    starts = range(0, len(test), QUERY_CHUNK)
    found = [index.search(l2_normalize(test[i : i + QUERY_CHUNK]), k) for i in (take_rank_pieces(starts) if ranks else starts)]
    similarity, near = np.empty((len(test), k), np.float32), np.empty((len(test), k), np.int64)
    for out, parts in ((similarity, [s for s, _ in found]), (near, [n for _, n in found])):
        _fill_chunks(out, parts, ranks)
    return similarity, near


def _fill_chunks(out: NDArray[Any], parts: list[NDArray[Any]], ranks: bool) -> None:
    """The chunks, of all ranks where they share the search, one after the other in `out`."""
    at = 0
    for x in (x.numpy() for x in gather_pieces(map(torch.from_numpy, parts), QUERY_CHUNK, len(out))) if ranks else parts:
        out[at : at + len(x)] = x
        at += len(x)


def l2_normalize(x: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of length 1, float32; rows of zeros stay. Raises InputError for rows that are not finite, which would be near to nothing."""
    x = np.ascontiguousarray(x, dtype=np.float32)
    if not np.isfinite(x).all():
        raise InputError(f"{int((~np.isfinite(x).all(1)).sum())} of {len(x)} feature rows hold NaN or infinity: the encoder is damaged")
    length = np.linalg.norm(x, axis=1, keepdims=True)
    whole: NDArray[np.float32] = np.divide(x, np.where(length > 0, length, 1), dtype=np.float32)
    return whole


def vote_shares(weight: NDArray[np.floating], y: NDArray[np.floating], index: NDArray[np.integer]) -> NDArray[np.float64]:
    """(M, C) share of the neighbours' weight that says yes, for each label among the neighbours who know it; NaN where none does.

    weight: (M, K) non-negative.  y: (N, C) in {0, 1}, NaN = unknown.  index: (M, K) rows of y."""
    scores = np.empty((len(index), y.shape[1]))
    for i in range(0, len(index), QUERY_CHUNK):
        said = y[index[i : i + QUERY_CHUNK]]  # (m, K, C)
        known = ~np.isnan(said)
        w = rearrange(np.asarray(weight[i : i + QUERY_CHUNK], np.float64), "m k -> m k 1") * known
        with np.errstate(invalid="ignore"):  # 0 / 0: nobody knows
            scores[i : i + QUERY_CHUNK] = einsum(w, np.where(known, said, 0.0), "m k c, m k c -> m c") / w.sum(1)
    return scores
