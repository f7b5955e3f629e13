"""BYOL, SimSiam, Barlow Twins, VICReg against their papers."""

import numpy as np
import pytest
import torch

from pretrain.methods.barlowtwins import STANDARDISE_EPS, barlow_twins_loss
from pretrain.methods.byol import byol_loss
from pretrain.methods.simsiam import negative_cosine_similarity
from pretrain.methods.vicreg import vicreg_terms
from tests import reference
from tests.pretrain.tiny import images, method, rows, step


def free(n, d, seed):
    """(n, d) in float64, rows of any length."""
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3 + 1


@pytest.mark.parametrize(("fast", "slow"), [(byol_loss, reference.byol), (negative_cosine_similarity, reference.simsiam)])
def test_losses_on_directions_equal_their_definitions(fast, slow):
    a, b = free(5, 8, 1), free(5, 8, 2)
    want = slow(a.numpy(), b.numpy())
    assert fast(a, b).item() == pytest.approx(want, rel=1e-10)
    assert fast(a.float(), b.float()).item() == pytest.approx(want, rel=1e-6)
    assert fast(a, 7 * a).item() == pytest.approx({byol_loss: 0.0, negative_cosine_similarity: -1.0}[fast], abs=1e-12)
    assert fast(a, -a).item() == pytest.approx({byol_loss: 4.0, negative_cosine_similarity: 1.0}[fast], rel=1e-12)


@pytest.mark.parametrize("weight", [0.0051, 1.0])
def test_barlow_twins_equals_its_definition(weight):
    a, b = free(9, 5, 1), free(9, 5, 2)
    want = reference.barlow_twins(a.numpy(), b.numpy(), weight, STANDARDISE_EPS)
    assert barlow_twins_loss(a, b, weight).item() == pytest.approx(want, rel=1e-10)
    assert barlow_twins_loss(a.float(), b.float(), weight).item() == pytest.approx(want, rel=1e-5)


def test_barlow_twins_is_zero_for_equal_whitened_views():
    q, _ = torch.linalg.qr(free(16, 4, 0) - free(16, 4, 0).mean(0))
    q = (q - q.mean(0)) * 4  # orthogonal columns of variance about 1
    assert barlow_twins_loss(q, q, 0.0051).item() == pytest.approx(0.0, abs=1e-4)


def test_vicreg_equals_its_definition():
    a, b = free(7, 5, 1) / 9, free(7, 5, 2) / 4
    for got, want in zip(vicreg_terms(a, b), reference.vicreg(a.numpy(), b.numpy()), strict=True):
        assert got.item() == pytest.approx(want, rel=1e-10)
    for got, want in zip(vicreg_terms(a.float(), b.float()), reference.vicreg(a.numpy(), b.numpy()), strict=True):
        assert got.item() == pytest.approx(want, rel=1e-5)


def test_vicreg_of_a_collapsed_batch_has_a_finite_gradient():
    a = torch.ones(6, 4, dtype=torch.float64, requires_grad=True)
    agree, vary, covary = vicreg_terms(a, a)
    assert (agree.item(), covary.item()) == (0.0, 0.0)
    assert vary.item() == pytest.approx(1 - 1e-2)  # sqrt of the published epsilon
    vary.backward()
    assert torch.isfinite(a.grad).all()


def test_gradients_pass_a_numerical_check():
    a, b = free(5, 3, 1).requires_grad_(), free(5, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: barlow_twins_loss(x, y, 0.1), (a, b))
    assert torch.autograd.gradcheck(lambda x, y: sum(vicreg_terms(x / 9, y / 9)), (a, b))
    assert torch.autograd.gradcheck(lambda x: byol_loss(x, b.detach()), a)


def test_simsiam_stops_the_gradient_into_the_projection():
    p, z = rows(4, 8, 1).requires_grad_(), rows(4, 8, 2).requires_grad_()
    negative_cosine_similarity(p, z).backward()
    assert p.grad is not None
    assert z.grad is None


def test_simsiam_keeps_the_predictors_rate_and_watches_the_spread():
    m = method("simsiam", dim=64, bottleneck=16)
    fixed = [g for g in m.param_groups() if g.get("fixed_lr")]
    assert {id(p) for g in fixed for p in g["params"]} == {id(p) for p in m.predictor.parameters()}
    assert all("weight_decay" not in g for g in m.param_groups())
    spread = m([images(16), images(16, seed=1)], None, 0.0)["spread"].item()
    assert 0.3 < spread <= 1.1
    with torch.no_grad():
        m.projector[-1].running_mean.zero_()
        m.projector[-2].weight.zero_()
    assert m([images(16), images(16, seed=1)], None, 0.0)["spread"].item() == pytest.approx(0.0, abs=1e-6)


def test_byol_moves_its_target_by_the_published_schedule():
    m = method("byol", dim=16, hidden=32, momentum=0.9, scale_momentum=False)
    before = [p.clone() for p in m.target.parameters()]
    step(m, [images(16), images(16, seed=1)], progress=0.25)
    tau = 1 - (1 - 0.9) * (np.cos(np.pi * 0.25) + 1) / 2
    online = [*m.backbone.parameters(), *m.projector.parameters()]
    for old, fast, slow in zip(before, online, m.target.parameters(), strict=True):
        torch.testing.assert_close(slow, tau * old + (1 - tau) * fast)
    assert m.momentum(0.0) == pytest.approx(0.9)
    assert m.momentum(1.0) == 1.0


def test_byol_predicts_the_other_view():
    m = method("byol", dim=16, hidden=32)
    x = [images(16), images(16, seed=1)]
    loss = m(x, None, 0.0)["loss"].item()
    with torch.no_grad():
        p = [m.predictor(m.projector(m.backbone(v))).numpy() for v in x]
        z = [m.target(v).numpy() for v in x]
    assert loss == pytest.approx(reference.byol(p[0], z[1]) + reference.byol(p[1], z[0]), rel=1e-5)


def test_barlow_twins_biases_learn_slower():
    m = method("barlowtwins", dim=32)
    scales = {g["name"]: (g.get("lr_scale", 1.0), g.get("weight_decay")) for g in m.param_groups()}
    assert scales == {"weights": (1.0, None), "vectors": (0.024, 0.0)}
