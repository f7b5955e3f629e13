"""LeJEPA against its paper."""

import numpy as np
import pytest
import torch
from lightly.loss.lejepa_loss import LeJEPALoss, SIGReg

from encoders.augment.presets import get_preset
from encoders.runtime.errors import InputError
from pretrain.methods.lejepa import invariance_loss, sigreg
from tests import reference
from tests.pretrain.tiny import images, method, step, vit

SMALL = {"dim": 6, "hidden": 32, "slices": 16}


def cloud(n, d, seed, scale=1.3, shift=0.2):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * scale + shift


def slices(d, s, seed=9):
    return torch.nn.functional.normalize(cloud(d, s, seed), dim=0)


@pytest.mark.parametrize(("knots", "t_max"), [(17, 3.0), (9, 5.0)])
def test_sigreg_equals_its_definition(knots, t_max):
    x, a = cloud(7, 5, 1), slices(5, 4)
    want = reference.sigreg(x.numpy(), a.numpy(), knots, t_max)
    assert sigreg(x, a, knots, t_max).item() == pytest.approx(want, rel=1e-10)
    assert sigreg(x.float(), a, knots, t_max).item() == pytest.approx(want, rel=1e-4)


def test_with_many_knots_sigreg_is_the_closed_form_of_epps_and_pulley():
    """n int |phi_n - phi|^2 w dt over the whole line has no integral left: sums of Gaussians of differences and of values."""
    x, a = cloud(9, 3, 2), slices(3, 5)
    closed = []
    for y in (x @ a).T.numpy():
        pairs = np.exp(-((y[:, None] - y[None]) ** 2) / 2).sum() / len(y) ** 2
        closed.append(len(y) * (np.sqrt(2 * np.pi) * pairs - 2 * np.sqrt(np.pi) * np.exp(-(y**2) / 4).mean() + np.sqrt(2 * np.pi / 3)))
    assert sigreg(x, a, 400, 9.0).item() == pytest.approx(np.mean(closed), rel=1e-6)


def test_sigreg_and_the_whole_loss_equal_lightlys_on_the_same_slices(monkeypatch):
    views, a = torch.stack([cloud(8, 6, s).float() for s in range(4)]), slices(6, 16).float()
    monkeypatch.setattr(SIGReg, "_generate_unit_vectors", lambda self, *args: a)
    theirs = LeJEPALoss(sigreg_num_vectors=16)(local_proj=views[2:], global_proj=views[:2]).item()
    ours = 0.95 * invariance_loss(views, 2) + 0.05 * torch.stack([sigreg(v, a, 17, 3.0) for v in views]).mean()
    assert ours.item() == pytest.approx(theirs, rel=1e-5)
    want = reference.lejepa(list(views.double().numpy()), 2, a.double().numpy(), 0.05, 17, 3.0)
    assert ours.item() == pytest.approx(want, rel=1e-4)


def test_sigreg_is_small_for_a_normal_cloud_and_large_for_a_collapsed_one():
    a = slices(4, 32)
    normal, point, wide = (sigreg(cloud(512, 4, 3, scale, 0), a, 17, 3.0).item() for scale in (1.0, 0.0, 3.0))
    assert normal < 2  # its mean under the null does not grow with the batch
    assert min(point, wide) > 50


@pytest.mark.parametrize("n_local", [0, 2])
def test_the_method_computes_the_papers_loss_on_its_views(n_local):
    m = method("lejepa", n_local=n_local, **SMALL)
    views = [images(16, seed=s) for s in range(2)] + [images(16, size=16, seed=9 + s) for s in range(n_local)]
    got = m(views, None, 0.25)["loss"].item()
    z = [m.projector(m.backbone(torch.cat(part))).detach().chunk(len(part)) for part in (views[:2], views[2:]) if part]
    flat = [v.double().numpy() for part in z for v in part]
    assert got == pytest.approx(reference.lejepa(flat, 2, m.directions(0.25).double().numpy(), 0.05, 17, 3.0), rel=1e-3)


def test_slices_are_unit_new_each_step_and_the_same_after_a_resume_and_on_every_rank():
    m = method("lejepa", **SMALL)
    torch.manual_seed(1)
    one = m.directions(1 / 3)
    torch.manual_seed(2)  # the loop seeds torch by rank and micro-batch: the slices must not follow
    assert torch.equal(one, m.directions(1 / 3))
    torch.testing.assert_close(one.norm(dim=0), torch.ones(16))
    assert not torch.allclose(one, m.directions(2 / 3))
    other = method("lejepa", seed=5, **SMALL)
    assert not torch.allclose(one, other.directions(1 / 3))
    other.load_state_dict(m.state_dict())
    assert torch.equal(one, other.directions(1 / 3))


def test_local_crops_are_small_and_in_whole_patches():
    m = method("lejepa", vit(size=64, dynamic_img_size=True), size=64, n_local=3, **SMALL)
    views = m.views(get_preset("cxr"))
    assert [v.size for v in views] == [None, None, 32, 32, 32]  # 98/224 of 64 is 28: 3.5 patches of 8
    assert views[2].crop == (0.05, 0.3)
    assert np.isfinite(step(m, [images(4, size=64)] * 2 + [images(4, size=32)] * 3))


def test_a_vit_of_one_size_is_refused_with_the_way_out():
    with pytest.raises(InputError, match="dynamic_img_size=true"):
        method("lejepa", vit(), n_local=2, **SMALL)
