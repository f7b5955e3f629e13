"""Measures of collapse of a matrix of features, in closed form.

Sources: RankMe, Garrido et al. 2023 (arXiv:2210.02885), equation 4; alpha-ReQ, Agrawal et al. 2022 (NeurIPS), section 3.
Everything in float64. Shapes: N images, D width, K outcomes of a teacher.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

WELL_CONDITIONED = 1e-4  # smallest over largest eigenvalue from which on its root is exact to 1e-14 of the largest root
SQUARES_RANGE = (1e-200, 1e200)  # of the largest eigenvalue: inside, squares neither overflow nor underflow


def singular_values(x: Tensor, count: int | None = None) -> Tensor:
    """The `count` largest singular values of x (N, D), all min(N, D) by default: float64, descending, exact to 1e-14 of the largest.

    For D > N they are roots of the eigenvalues of the Gram matrix (N, N), at a fraction of the cost of a decomposition of x. Where the
    smallest of them is lost in the rounding errors of the squares, the rows of x are first rotated to the eigenvectors and scaled to length
    1, so that the second Gram matrix is nearly the identity.  Source: Stathopoulos and Wu 2002 (SIAM J. Sci. Comput. 23), method SVQB."""
    x = x.double()
    count = min(x.shape) if count is None else min(count, *x.shape)
    values: Tensor
    if x.shape[1] > x.shape[0]:
        squares, axes = torch.linalg.eigh(x @ x.T)  # ascending
        largest = float(squares[-1])
        if SQUARES_RANGE[0] < largest < SQUARES_RANGE[1]:
            if squares[-count] >= WELL_CONDITIONED * largest:
                values = squares[-count:].sqrt().flip(0)
                return values
            lengths = squares.clamp(min=len(x) * torch.finfo(x.dtype).eps * largest).sqrt()  # (N,) smaller ones are rounding errors
            rows = (axes / lengths).T @ x  # (N, D) nearly orthonormal; those of rounding errors are shorter
            squares, mix = torch.linalg.eigh(rows @ rows.T)
            x = lengths[:, None] * mix * squares.clamp(min=0).sqrt()  # (N, N) with the same singular values: x = axes diag(lengths) rows
    values = torch.linalg.svdvals(x)[:count]
    return values


def rankme(x: Tensor) -> float:
    """Effective rank, the exponential of the entropy of the singular values' shares: 1 for one direction, min(N, D) at most.

    x: (N, D), not centred, as published."""
    values = singular_values(x)
    p = values / values.sum().clamp(min=1e-300)
    return math.exp(float(-(p * (p + 1e-7).log()).sum()))  # 1e-7 as published: 0 log 0 is 0


def alpha_req(x: Tensor) -> float:
    """The exponent a of the spectrum i ** -a of the covariance; 1 is published as good, far above 1 is dimensional collapse.

    Least squares in log-log over the larger half of the eigenvalues (the tail of N images is noise). NaN if there are fewer than three.

    x: (N, D)."""
    x = x.double()
    count = max(min(len(x) - 1, x.shape[1]) // 2, 1)
    values = singular_values(x - x.mean(dim=0), count) ** 2 / max(len(x) - 1, 1)
    values = values[values > 1e-12 * values[0].clamp(min=1e-300)]  # smaller ones are rounding errors
    if len(values) < 3:
        return math.nan
    rank, height = torch.arange(1, len(values) + 1, dtype=torch.float64).log(), values.log()
    rank, height = rank - rank.mean(), height - height.mean()
    return -float((rank * height).sum() / (rank**2).sum())


def unit_vector_std(x: Tensor) -> float:
    """Standard deviation of a coordinate of unit vectors over images, in 1/sqrt(D): 1 over the whole sphere, 0 for one point.

    x: (N, D).  Source: Chen and He 2020 (arXiv:2011.10566), figure 2."""
    u = normalize(x.double(), dim=1)
    return float(torch.linalg.vector_norm(u.sub_(u.mean(dim=0)))) / math.sqrt(len(u))


def mean_cosine(x: Tensor) -> float:
    """Mean cosine of two different images.  x: (N, D)."""
    u, n = normalize(x.double(), dim=1), len(x)
    return float((u.sum(dim=0).pow(2).sum() - u.pow(2).sum()) / (n * (n - 1)))


def teacher_entropies(p: Tensor) -> tuple[float, float]:
    """(mean entropy of a row, entropy of the mean row), as shares of log K.  p: (N, K), rows that sum to 1.

    Both equal: all images get the same distribution; both 1: it is uniform; the second 0: all images get one outcome."""
    largest = math.log(p.shape[1])
    p = p.double()
    per_row = -torch.xlogy(p, p).sum(dim=1).mean()
    mean = p.mean(dim=0)
    return float(per_row) / largest, float(-torch.xlogy(mean, mean).sum()) / largest
