"""What trains is what the papers say: the loss of `forward` is the independent one of the method's own embeddings."""

import pytest
import torch

from pretrain.methods import METHODS
from tests.pretrain.methods.forward_losses import FORWARD_LOSS, SETTINGS
from tests.pretrain.tiny import batch, small_method, step

CASES = [(name, settings) for name in METHODS for settings in SETTINGS[name]]


def double(m, i):
    """Batch number i in float64."""
    views, masks = batch(m, i)
    return [view.double() for view in views], masks


@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
def test_forward_returns_the_loss_of_the_paper(name, settings):
    """After two steps, so that slow networks differ from fast ones and queue, patients and centre hold what training puts there."""
    m = small_method(name, **settings).double()
    patient_ids = torch.arange(16) // 3 if m.needs_patients() else None
    for i in range(2):
        step(m, *double(m, i), progress=0.05, patient_ids=patient_ids)
    views, masks = double(m, 2)
    torch.manual_seed(3)
    loss = m(views, masks, 0.1, patient_ids)["loss"].item()
    torch.manual_seed(3)  # MoCo shuffles
    want = FORWARD_LOSS[name](m, views, masks, 0.1, None if patient_ids is None else patient_ids.numpy())
    assert loss == pytest.approx(want, rel=1e-9)
