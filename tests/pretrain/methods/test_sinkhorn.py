"""Sinkhorn-Knopp and KoLeo against their papers."""

import numpy as np
import pytest
import torch

from pretrain.methods.koleo import koleo_loss
from pretrain.methods.sinkhorn import sinkhorn
from tests import reference
from tests.ranks import run_on_two_ranks


def normal(rows, columns, seed=0, dtype=torch.float64):
    return torch.randn(rows, columns, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize("temperature", [0.04, 0.07, 1.0])
def test_assignments_are_those_of_the_paper(temperature, iterations):
    logits = torch.tanh(normal(6, 9))
    want = reference.sinkhorn_knopp(logits.numpy(), temperature, iterations)
    got = sinkhorn(logits, temperature, iterations)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-9)
    np.testing.assert_allclose(got.sum(dim=1).numpy(), 1, rtol=1e-12)
    half = sinkhorn(logits.bfloat16(), temperature, iterations)
    assert half.dtype == torch.float32


def test_every_prototype_is_used_equally_often_after_many_iterations():
    used = sinkhorn(normal(40, 5), 0.5, 100).sum(dim=0)
    np.testing.assert_allclose(used.numpy(), 8, rtol=1e-6)
    few = sinkhorn(normal(40, 5), 0.5, 1).sum(dim=0)
    assert (few - 8).abs().max() > 0.1


def test_outputs_without_a_difference_are_assigned_to_all_prototypes_alike():
    np.testing.assert_allclose(sinkhorn(normal(1, 7).expand(4, 7), 0.04).numpy(), 1 / 7, rtol=1e-9)


def test_logits_far_apart_give_finite_assignments():
    """exp(300 / 0.04) is far beyond float64."""
    logits = 300 * normal(8, 16, dtype=torch.float32)
    got = sinkhorn(logits, 0.04)
    assert torch.isfinite(got).all()
    torch.testing.assert_close(got.sum(dim=1), torch.ones(8))
    assert (sinkhorn(normal(0, 16), 0.04).shape) == (0, 16)


def own_part(rank, path):
    """Five rows on one rank and two on the other, of which the second rank looks at its own alone, too; then rows on one rank only."""
    rows = torch.load(path / "rows.pt")
    part = rows[:5] if rank == 0 else rows[5:]
    empty = rows if rank == 0 else rows[:0]
    torch.save([sinkhorn(part, 0.07), sinkhorn(part, 0.07, over_ranks=False), sinkhorn(empty, 0.07)], path / f"{rank}.pt")


@pytest.mark.slow
def test_ranks_balance_the_rows_of_all_of_them_together(tmp_path):
    rows = torch.tanh(normal(7, 4))
    torch.save(rows, tmp_path / "rows.pt")
    run_on_two_ranks(own_part, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    close = {"rtol": 1e-12, "atol": 1e-15}
    torch.testing.assert_close(torch.cat([first[0], second[0]]), sinkhorn(rows, 0.07), **close)
    torch.testing.assert_close(second[1], sinkhorn(rows[5:], 0.07), **close)
    torch.testing.assert_close(torch.cat([first[2], second[2]]), sinkhorn(rows, 0.07), **close)
    assert len(second[2]) == 0


def test_koleo_is_that_of_the_paper():
    x = normal(7, 5)
    assert koleo_loss(x).item() == pytest.approx(reference.koleo(x.numpy()), rel=1e-12)
    assert koleo_loss(3 * x).item() == pytest.approx(koleo_loss(x).item(), rel=1e-12)  # only directions matter
    assert koleo_loss(x.bfloat16()).dtype == torch.float32
    corners = torch.eye(4, dtype=torch.float64)
    assert koleo_loss(corners).item() == pytest.approx(-np.log(np.sqrt(2)), rel=1e-6)
    assert torch.autograd.gradcheck(koleo_loss, x.requires_grad_())


def test_koleo_of_equal_rows_is_finite_and_of_one_row_is_zero():
    equal = torch.ones(3, 4, requires_grad=True)
    loss = koleo_loss(equal)
    loss.backward()
    assert loss.item() == pytest.approx(-np.log(3e-8), rel=1e-3)  # 1e-8 along four axes are 2e-8
    assert torch.isfinite(equal.grad).all()
    assert koleo_loss(torch.ones(1, 4)).item() == 0
