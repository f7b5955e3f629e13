"""Measures of collapse of a matrix of features, in closed form.

Sources: RankMe, Garrido et al. 2023 (arXiv:2210.02885), equation 4; alpha-ReQ, Agrawal et al. 2022 (NeurIPS), section 3.
Everything in float64. Shapes: N images, D width, K outcomes of a teacher.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize


def rankme(x: Tensor) -> float:
    """Effective rank, the exponential of the entropy of the singular values' shares: 1 for one direction, min(N, D) at most.

    x: (N, D), not centred, as published."""
    values = torch.linalg.svdvals(x.double())
    p = values / values.sum().clamp(min=1e-300)
    return math.exp(float(-(p * (p + 1e-7).log()).sum()))  # 1e-7 as published: 0 log 0 is 0


def alpha_req(x: Tensor) -> float:
    """The exponent a of the spectrum i ** -a of the covariance; 1 is published as good, far above 1 is dimensional collapse.

    Least squares in log-log over the larger half of the eigenvalues (the tail of N images is noise). NaN if there are fewer than three.

    x: (N, D)."""
    centred = x.double() - x.double().mean(dim=0)
    values = torch.linalg.svdvals(centred) ** 2 / max(len(x) - 1, 1)
    values = values[: max(min(len(x) - 1, x.shape[1]) // 2, 1)]
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
    return float(u.std(dim=0, correction=0).pow(2).mean().sqrt() * math.sqrt(u.shape[1]))


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
