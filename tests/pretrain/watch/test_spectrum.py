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


def with_singular_values(values, d, seed=0):
    """(N, d) with these N singular values."""
    values = torch.as_tensor(values, dtype=torch.float64)
    return orthogonal(len(values), len(values), seed) * values @ orthogonal(d, len(values), seed + 1).T


SPECTRA = {
    "equal": np.ones(24),
    "mild": np.logspace(0, -1, 24),
    "lost in float32 squares": np.logspace(0, -6, 24),
    "lost in squares": np.logspace(0, -13, 24),
    "one large": [1e4, *np.ones(23)],
    "two plateaus": [1] * 5 + [1e-7] * 19,
    "rank 5": [1] * 5 + [0] * 19,
    "one direction": [1] + [0] * 23,
    "zero": np.zeros(24),
    "huge": 1e150 * np.logspace(0, -1, 24),
    "tiny": 1e-150 * np.logspace(0, -1, 24),
}


@pytest.mark.parametrize("width", [24, 25, 300])
@pytest.mark.parametrize("name", SPECTRA)
def test_singular_values_are_those_that_the_matrix_is_made_of(name, width):
    want = np.asarray(SPECTRA[name], dtype=float)
    got = spectrum.singular_values(with_singular_values(want, width)).numpy()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-13 * max(want[0], 1e-300))
    some = spectrum.singular_values(with_singular_values(want, width), 7).numpy()
    np.testing.assert_allclose(some, want[:7], rtol=0, atol=1e-13 * max(want[0], 1e-300))


@pytest.mark.parametrize("shape", [(40, 12), (12, 12), (12, 13), (12, 400), (1, 5), (3, 2000)])
def test_rank_and_exponent_of_wide_and_narrow_matrices_are_those_of_a_decomposition(shape):
    offsets = (0.0, 30.0)
    for values in (x(*shape) + offset for offset in offsets):
        s = np.linalg.svd(values.numpy(), compute_uv=False)
        p = s / s.sum()
        assert spectrum.rankme(values) == pytest.approx(math.exp(-(p * np.log(p + 1e-7)).sum()), rel=1e-12)
        got, want = spectrum.alpha_req(values), alpha_by_decomposition(values.numpy())
        assert math.isnan(got) == math.isnan(want)
        assert math.isnan(want) or got == pytest.approx(want, rel=1e-11)


def alpha_by_decomposition(values):
    n, d = values.shape
    s = np.linalg.svd(values - values.mean(0), compute_uv=False) ** 2
    s = s[: max(min(n - 1, d) // 2, 1)]
    return -np.polyfit(np.log(np.arange(1, len(s) + 1)), np.log(s), 1)[0] if len(s) > 2 else math.nan


@pytest.mark.parametrize("shape", [(40, 12), (12, 400)])
def test_images_that_are_all_equal_have_rank_1_and_no_exponent(shape):
    for same in (torch.full(shape, 3.0), x(1, shape[1]).expand(shape)):
        assert spectrum.rankme(same) == pytest.approx(1, abs=1e-6)  # -(1 log(1 + 1e-7)), as published
        assert math.isnan(spectrum.alpha_req(same))
