"""I-JEPA against its paper: targets of the slow encoder, a context that does not see them, and the encoder that is exported."""

import pytest
import torch

from encoders.augment.context_masks import ContextMasks
from encoders.runtime.errors import InputError
from pretrain.methods.ijepa import prediction_loss
from tests import reference
from tests.pretrain.tiny import batch, cnn, images, method, same_state, small_method, snapshot, step, vit

SMALL = {"predictor_width": 24, "predictor_depth": 1, "predictor_heads": 2, "min_keep": 4}
CONTEXT, TARGETS = torch.tensor([[0, 1, 4, 5, 8], [2, 3, 6, 7, 11]]), torch.tensor([[[10, 11], [14, 15]], [[12, 13], [8, 9]]])
MASKS = [ContextMasks(CONTEXT, TARGETS)]


def pixels_of(tokens, columns=4, side=8):
    """(H, W) true for the pixels of these patches."""
    hidden = torch.zeros(columns * columns, dtype=torch.bool)
    hidden[tokens.reshape(-1)] = True
    return hidden.view(columns, columns).repeat_interleave(side, 0).repeat_interleave(side, 1)


def test_the_loss_equals_its_definition():
    predicted = torch.randn(2, 3, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = 5 + 3 * torch.randn(2, 3, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    want = reference.ijepa(predicted.reshape(-1, 8).numpy(), target.reshape(-1, 8).numpy())
    assert prediction_loss(predicted, target).item() == pytest.approx(want, rel=1e-12)


def test_the_context_encoder_sees_the_context_only_and_the_target_encoder_everything():
    m, x = method("ijepa", vit(), **SMALL).eval(), images(2)
    away = torch.stack([~pixels_of(tokens) for tokens in CONTEXT])[:, None]
    other = torch.where(away, torch.randn(x.shape), x)
    seen = []
    m.predictor.register_forward_hook(lambda layer, given, out: seen.append(out))
    losses = [m([view], MASKS, 0.0)["loss"] for view in (x, other)]
    assert torch.equal(*seen)
    assert losses[0] != losses[1]


def test_each_target_block_is_predicted_on_its_own():
    m, x = method("ijepa", vit(), **SMALL).eval(), images(2)
    codes = torch.randn(2, 5, 48)
    both = m.predictor(codes, CONTEXT, TARGETS)
    for i in range(2):
        torch.testing.assert_close(m.predictor(codes, CONTEXT, TARGETS[:, i : i + 1])[:, 0], both[:, i])
    assert x.shape[0] == len(both)
    order = torch.tensor([1, 0])
    torch.testing.assert_close(m.predictor(codes, CONTEXT, TARGETS[:, :, order]), both[:, :, order])  # a place has its own answer
    assert (both[:, 0, 0] - both[:, 0, 1]).abs().max() > 1e-6


def test_no_gradient_reaches_the_targets_and_they_follow_by_the_published_schedule():
    m = method("ijepa", vit(), momentum=0.9, scale_momentum=False, **SMALL)
    assert [m.momentum(done) for done in (0.0, 0.25, 1.0)] == pytest.approx([0.9, 0.925, 1.0])
    before = [p.clone() for p in m.target.parameters()]
    step(m, [images(2)], MASKS, progress=0.25)
    for old, slow, fast in zip(before, m.target.parameters(), m.vit.parameters(), strict=True):
        assert slow.grad is None
        torch.testing.assert_close(slow, 0.925 * old + 0.075 * fast)


def test_the_momentum_keeps_its_lag_in_images():
    published = method("ijepa", vit(), batch=2048, **SMALL)
    small = method("ijepa", vit(), batch=512, **SMALL)
    assert published.momentum(0.5) == pytest.approx(0.998)
    assert small.momentum(0.5) ** 4 == pytest.approx(0.998)
    assert published.notes(published.data) == []
    assert "0.996 -> 0.998998 at batch 512" in small.notes(small.data)[0]


def test_the_slow_encoder_is_exported():
    m = small_method("ijepa")
    for i in range(3):
        step(m, *batch(m, i), progress=0.1)
    assert m.encoder() is m.target
    assert not same_state(snapshot(m.target), snapshot(m.vit))


def test_the_blocks_are_those_of_the_paper_for_the_whole_batch():
    spec = method("ijepa", vit(size=224, patch=16), size=224, batch=96).mask_spec()
    assert (spec.rows, spec.columns, spec.batch, spec.targets, spec.min_keep) == (14, 14, 96, 4, 10)
    assert (spec.target_scale, spec.target_aspect, spec.context_scale) == ((0.15, 0.2), (0.75, 1.5), (0.85, 1.0))


@pytest.mark.parametrize("settings", [{"dynamic_img_size": True}, {"reg_tokens": 4}, {"class_token": False, "global_pool": "avg"}], ids=str)
def test_it_takes_every_plain_vit(settings):
    m = method("ijepa", vit(**settings), **SMALL)
    m([images(2)], MASKS, 0.0)["loss"].backward()
    assert m.predictor.mask_token.grad.abs().max() > 0
    assert m.vit.patch_embed.proj.weight.grad.abs().max() > 0


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="method ijepa needs a timm VisionTransformer, got ResNet"):
        method("ijepa", cnn())
    with pytest.raises(InputError, match=r"min_keep=10: a view has only 3 x 3 patches"):
        method("ijepa", vit(size=24), size=24)
    with pytest.raises(InputError, match=r"predictor_width=30: expected a multiple of 4 and of method.predictor_heads=2"):
        method("ijepa", vit(), **(SMALL | {"predictor_width": 30}))
