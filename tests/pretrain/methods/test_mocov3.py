"""MoCo v3 against its paper."""

import math

import numpy as np
import pytest
import torch

from pretrain.methods.mocov3 import contrastive_loss
from tests import reference
from tests.pretrain.tiny import images, method, rows, same_state, snapshot, step, vit


@pytest.mark.parametrize("t", [0.2, 1.0])
def test_the_loss_equals_its_definition(t):
    q, k = rows(5, 8, 1), rows(5, 8, 2)
    want = reference.moco_v3(q.numpy(), k.numpy(), t)
    assert contrastive_loss(q, k, t).item() == pytest.approx(want, rel=1e-10)
    assert contrastive_loss(q.float(), k.float(), t).item() == pytest.approx(want, rel=1e-6)


def test_collinear_embeddings_cost_log_of_the_batch():
    one = rows(1, 8, 0).expand(6, -1)
    assert contrastive_loss(one, one, 0.2).item() == pytest.approx(2 * 0.2 * math.log(6), abs=1e-12)


def test_the_gradient_passes_a_numerical_check():
    q, k = rows(3, 4, 1).requires_grad_(), rows(3, 4, 2)
    assert torch.autograd.gradcheck(lambda x: contrastive_loss(x, k, 0.2), q)


def test_a_query_meets_the_key_of_the_other_view():
    m = method("mocov3", dim=16, hidden=32)
    x = [images(16), images(16, seed=1)]
    loss = m(x, None, 0.0)["loss"].item()
    with torch.no_grad():
        q = [torch.nn.functional.normalize(m.predictor(m.projector(m.backbone(v)))).numpy() for v in x]
        k = [torch.nn.functional.normalize(m.key(v)).numpy() for v in x]
    assert loss == pytest.approx(reference.moco_v3(q[0], k[1], 1.0) + reference.moco_v3(q[1], k[0], 1.0), rel=1e-5)


def test_a_vits_patch_embedding_and_positions_never_move():
    m = method("mocov3", vit(), dim=16, hidden=32)
    assert m.temperature == 0.2
    before = snapshot(m.encoder())
    step(m, [images(8), images(8, seed=1)])
    still = {n for n, v in m.encoder().state_dict().items() if torch.equal(v, before[n])}
    assert {"patch_embed.proj.weight", "patch_embed.proj.bias", "pos_embed"} <= still
    assert "blocks.0.attn.qkv.weight" not in still
    np.testing.assert_allclose(before["pos_embed"][0, 1:].numpy(), reference.sincos(48, 4, 4), atol=1e-6)


def test_weights_from_another_encoder_are_kept():
    backbone = vit()
    before = snapshot(backbone)
    assert same_state(before, snapshot(method("mocov3", backbone, pretrained=True, dim=16, hidden=32).encoder()))
