"""Supervised contrastive learning against its paper."""

import math

import numpy as np
import pytest
import torch

from encoders.runtime.errors import InputError
from pretrain.methods.simclr import nt_xent
from pretrain.methods.supcon import supcon_loss
from tests import reference
from tests.pretrain.tiny import images, method, rows, small_method

CLASSES = torch.tensor([0, 1, 0, -1, 1, 0, -1])
WHO = torch.tensor([0, 0, 1, 1, 2, 1, 2])


@pytest.mark.parametrize("t", [0.07, 0.1, 1.0])
@pytest.mark.parametrize("patients", [None, WHO])
def test_the_loss_equals_its_definition(t, patients):
    a, b = rows(7, 8, 1), rows(7, 8, 2)
    want = reference.supcon(a.numpy(), b.numpy(), t, CLASSES.numpy(), None if patients is None else patients.numpy())
    assert supcon_loss(a, b, t, CLASSES, patients).item() == pytest.approx(want, rel=1e-10)
    assert supcon_loss(a.float(), b.float(), t, CLASSES, patients).item() == pytest.approx(want, rel=1e-5)
    assert supcon_loss(a, b, t, None, patients).item() != pytest.approx(want, rel=1e-3)


@pytest.mark.parametrize("classes", [None, torch.full((7,), -1), torch.arange(7)])
def test_without_two_images_of_a_class_the_loss_is_that_of_simclr(classes):
    a, b = rows(7, 8, 1), rows(7, 8, 2)
    assert supcon_loss(a, b, 0.3, classes).item() == pytest.approx(nt_xent(a, b, 0.3).item(), rel=1e-12)
    assert supcon_loss(a, b, 0.3, classes, WHO).item() == pytest.approx(nt_xent(a, b, 0.3, WHO).item(), rel=1e-12)


def test_collinear_embeddings_cost_log_of_the_others_and_separated_classes_the_log_of_their_own():
    one = rows(1, 8, 0).expand(6, -1)
    assert supcon_loss(one, one, 0.1, torch.tensor([0, 0, 1, 1, 1, -1])).item() == pytest.approx(math.log(11), abs=1e-12)
    two = torch.eye(2, dtype=torch.float64)[[0, 0, 0, 1, 1, 1]]  # orthogonal: each view is left with the five others of its class
    assert supcon_loss(two, two, 0.01, torch.tensor([0, 0, 0, 1, 1, 1])).item() == pytest.approx(math.log(5), abs=1e-12)


def test_the_gradient_passes_a_numerical_check_and_order_does_not_matter():
    a, b, order = rows(7, 4, 1), rows(7, 4, 2), torch.tensor([3, 1, 4, 0, 2, 6, 5])
    assert torch.autograd.gradcheck(lambda x, y: supcon_loss(x, y, 0.5, CLASSES, WHO), (a.requires_grad_(), b.requires_grad_()))
    loss = supcon_loss(a, b, 0.1, CLASSES).item()
    assert supcon_loss(b, a, 0.1, CLASSES).item() == pytest.approx(loss, rel=1e-12)
    assert supcon_loss(a[order], b[order], 0.1, CLASSES[order]).item() == pytest.approx(loss, rel=1e-12)


def test_forward_trains_on_the_classes_that_it_is_given():
    m = small_method("supcon", temperature=0.2).double()
    views = [images(7).double(), images(7, seed=1).double()]
    with torch.no_grad():
        a, b = m.head(m.backbone(torch.cat(views))).chunk(2)
    want = reference.supcon(a.numpy(), b.numpy(), 0.2, CLASSES.numpy())
    assert m(views, None, 0.0, class_ids=CLASSES)["loss"].item() == pytest.approx(want, rel=1e-9)
    assert m(views, None, 0.0)["loss"].item() == pytest.approx(nt_xent(*map(torch.nn.functional.normalize, (a, b)), 0.2).item(), rel=1e-9)
    assert not np.isclose(m(views, None, 0.0)["loss"].item(), want, rtol=1e-3)


def test_the_label_is_a_required_setting_and_small_batches_are_said():
    with pytest.raises(InputError, match=r"needs the column of the store .* set method\.label=NAME"):
        method("supcon").label_column()
    assert method("supcon", label="view").label_column() == "view"
    assert "gives 31 other views" in method("supcon").notes(method("supcon").data)[0]
