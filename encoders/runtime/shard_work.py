"""Work in pieces, dealt out to the ranks like cards, and its results in the order of one process.

Pieces are what one process would work on at a time, so that the results are the same bits on any number of ranks.

Shapes: R ranks, b rows of a piece.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from encoders.runtime import dist

T = TypeVar("T")


def take_rank_pieces(pieces: Sequence[T]) -> list[T]:
    """This rank's pieces, every R-th. Where the last round is short the last piece is dealt again: all ranks have as many."""
    return [pieces[min(i + dist.rank(), len(pieces) - 1)] for i in range(0, len(pieces), dist.world_size())]


def gather_pieces(mine: Iterable[Tensor], piece: int, rows: int) -> Iterator[Tensor]:
    """The results of all ranks, R pieces at a time, on every rank; `rows` rows altogether.

    mine: (b, ...) for each piece that `dealt` gave; b is `piece`, but for the last of all."""
    for x in mine:
        if dist.world_size() > 1 and len(x) < piece:
            x = torch.cat([x, x.new_zeros(piece - len(x), *x.shape[1:])])  # collectives want equal shapes
        out = dist.gather(x)[:rows]
        rows -= len(out)
        yield out
