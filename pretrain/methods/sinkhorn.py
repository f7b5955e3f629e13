"""Sinkhorn-Knopp: a teacher's outputs as soft assignments that use all prototypes equally often.

Source: Caron et al. 2020 (arXiv:2006.09882, SwAV), section 3.1 and appendix A; facebookresearch/dinov2, `sinkhorn_knopp_teacher`.

The published code divides the matrix exp(logits / T) by its row sums and column sums in turn. Here the matrix stays as it is, and two
vectors hold the factors of its rows and columns: the same numbers, without a copy of the matrix per iteration.

Shapes: B rows of this rank, K prototypes, R ranks.
"""

import torch
from einops import einsum
from torch import Tensor

from encoders.runtime import dist
from pretrain.methods.precision import full_precision


@torch.no_grad()
@full_precision
def sinkhorn(logits: Tensor, temperature: float, iterations: int = 3, over_ranks: bool = True) -> Tensor:
    """(B, K) assignments: each row sums to 1, and over the rows of all ranks each prototype has about the same sum.

    logits: (B, K); B may differ between ranks and be 0.  over_ranks: false for rows that one rank alone looks at."""
    scaled = logits / temperature
    row_largest = scaled.amax(dim=1)  # (B,)
    matrix = (scaled - row_largest[:, None]).exp()  # (B, K): no row vanishes, however far the logits are apart
    smallest = torch.finfo(matrix.dtype).tiny  # a prototype that no row is near has a sum of 0
    row_factor = (row_largest - _largest(row_largest, over_ranks)).exp()  # (B,): with it, the matrix is exp(logits / T) up to one factor
    for _ in range(iterations):
        used = _sum_ranks(einsum(matrix, row_factor, "b k, b -> k"), over_ranks)
        prototype_factor = 1 / used.clamp(min=smallest)  # (K,)
        row_factor = 1 / einsum(matrix, prototype_factor, "b k, k -> b").clamp(min=smallest)
    return matrix * prototype_factor * row_factor[:, None]


def _largest(x: Tensor, over_ranks: bool) -> Tensor:
    """The largest number of all ranks' x (B,): a scalar. A rank without rows has none."""
    own = torch.cat([x, x.new_full((1,), -torch.inf)]).amax()
    return dist.gather(own[None]).amax() if over_ranks else own


def _sum_ranks(x: Tensor, over_ranks: bool) -> Tensor:
    """x, summed over ranks in their order."""
    return dist.gather(x[None]).sum(dim=0) if over_ranks else x
