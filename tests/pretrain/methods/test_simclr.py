"""SimCLR against its paper."""

import math

import pytest
import torch

from pretrain.methods.simclr import nt_xent
from tests import reference
from tests.pretrain.tiny import images, method, rows


@pytest.mark.parametrize("t", [0.1, 0.5, 1.0])
def test_nt_xent_equals_its_definition(t):
    a, b = rows(5, 8, 1), rows(5, 8, 2)
    want = reference.nt_xent(a.numpy(), b.numpy(), t)
    assert nt_xent(a, b, t).item() == pytest.approx(want, rel=1e-10)
    assert nt_xent(a.float(), b.float(), t).item() == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("n", [2, 5, 32])
def test_collinear_embeddings_cost_log_of_the_others(n):
    one = rows(1, 8, 0).expand(n, -1)
    assert nt_xent(one, one, 0.1).item() == pytest.approx(math.log(2 * n - 1), abs=1e-12)


def test_the_gradient_passes_a_numerical_check():
    a, b = rows(3, 4, 1).requires_grad_(), rows(3, 4, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: nt_xent(x, y, 0.5), (a, b))


def test_swapping_views_or_permuting_images_keeps_the_loss():
    a, b, order = rows(5, 8, 1), rows(5, 8, 2), torch.tensor([3, 1, 4, 0, 2])
    loss = nt_xent(a, b, 0.1).item()
    assert nt_xent(b, a, 0.1).item() == pytest.approx(loss, rel=1e-12)
    assert nt_xent(a[order], b[order], 0.1).item() == pytest.approx(loss, rel=1e-12)


def test_both_views_pass_as_one_batch_and_the_head_is_the_published_one():
    m = method("simclr", hidden=32)
    sizes = []
    m.backbone.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    out = m([images(8), images(8, seed=1)], None, 0.0)
    assert sizes == [16]
    assert [type(x).__name__ for x in m.head] == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    with torch.no_grad():
        a, b = torch.nn.functional.normalize(m.head(m.backbone(torch.cat([images(8), images(8, seed=1)])))).chunk(2)
    assert out["loss"].item() == pytest.approx(reference.nt_xent(a.numpy(), b.numpy(), 0.1), rel=1e-5)


def test_few_negatives_are_said():
    assert "126 negatives" in method("simclr", batch=64).notes(method("simclr", batch=64).data)[0]
    assert method("simclr", batch=256).notes(method("simclr", batch=256).data) == []
