"""Distributes pieces of work over ranks, and gathers their results in the order of a single process.

A piece is what a single process would compute at once, so that results are bit-identical for any number of ranks.

Shapes: R ranks, b rows of a piece.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from encoders.runtime import dist

T = TypeVar("T")


def take_rank_pieces(pieces: Sequence[T]) -> list[T]:
    """This rank's pieces: every R-th. The last piece is repeated as needed, so that all ranks have the same number."""
    return [pieces[min(i + dist.rank(), len(pieces) - 1)] for i in range(0, len(pieces), dist.world_size())]


def gather_pieces(results: Iterable[Tensor], piece_size: int, rows: int) -> Iterator[Tensor]:
    """The results of all ranks, R pieces at a time, on every rank; `rows` rows in total.

    results: (b, ...) for each piece of `take_rank_pieces`; b is `piece_size`, except for the very last piece."""
    for x in results:
        if dist.world_size() > 1 and len(x) < piece_size:
            x = torch.cat([x, x.new_zeros(piece_size - len(x), *x.shape[1:])])  # collectives need equal shapes
        out = dist.gather(x)[:rows]
        rows -= len(out)
        yield out
