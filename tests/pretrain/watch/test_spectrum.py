"""Measures of collapse against their papers and closed forms."""

import math

import numpy as np
import pytest
import torch

from pretrain.watch import spectrum


def x(n=40, d=12, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(n, d, seed=0):
    return torch.linalg.qr(x(n, d, seed)).Q


def test_effective_rank_is_d_for_equal_directions_and_1_for_one():
    assert spectrum.rankme(orthogonal(40, 12)) == pytest.approx(12, rel=1e-5)
    assert spectrum.rankme(x(40, 1) @ x(1, 12)) == pytest.approx(1, abs=1e-4)


def test_effective_rank_is_the_papers_formula():
    s = np.linalg.svd(x().numpy(), compute_uv=False)
    p = s / s.sum() + 1e-7
    assert spectrum.rankme(x()) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-5)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
def test_alpha_is_that_of_a_known_power_law(alpha):
    centred = x(200, 30) - x(200, 30).mean(0)
    u, v = torch.linalg.svd(centred, full_matrices=False)[0], orthogonal(30, 30, seed=1)
    values = torch.arange(1, 31, dtype=torch.float64) ** -alpha  # eigenvalues of the covariance
    assert spectrum.alpha_req(u * values.sqrt() @ v.T + 5.0) == pytest.approx(
        alpha, rel=1e-8
    )  # + 5: the mean does not count as a dimension


def test_spread_is_1_over_the_sphere_and_0_for_a_point():
    assert spectrum.unit_vector_std(x(20000, 8)) == pytest.approx(1, abs=0.01)
    assert spectrum.unit_vector_std(torch.ones(10, 8)) == pytest.approx(0, abs=1e-9)
    u = x().numpy() / np.linalg.norm(x().numpy(), axis=1, keepdims=True)
    assert spectrum.unit_vector_std(x()) == pytest.approx(np.sqrt((u.std(0) ** 2).mean()) * np.sqrt(12), rel=1e-10)


def test_mean_cosine_is_that_of_all_pairs():
    u = x().numpy() / np.linalg.norm(x().numpy(), axis=1, keepdims=True)
    pairs = [u[i] @ u[j] for i in range(40) for j in range(40) if i != j]
    assert spectrum.mean_cosine(x()) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_entropies_of_a_teacher():
    assert spectrum.teacher_entropies(torch.full((6, 8), 1 / 8)) == pytest.approx((1, 1), abs=1e-6)
    assert spectrum.teacher_entropies(torch.eye(8)) == pytest.approx((0, 1), abs=1e-6)  # each image another prototype
    assert spectrum.teacher_entropies(torch.eye(8)[[3] * 5]) == pytest.approx((0, 0), abs=1e-6)
