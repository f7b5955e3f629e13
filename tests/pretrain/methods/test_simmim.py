"""SimMIM against its paper: what the encoder sees, the pixels that count, and the network that is exported."""

import numpy as np
import pytest
import torch

from encoders.augment.masks import TokenMask
from encoders.runtime.errors import InputError
from pretrain.methods.positions import sincos_2d
from pretrain.methods.simmim import masked_l1
from pretrain.methods.vit_tokens import patchify
from tests import reference
from tests.pretrain.tiny import cnn, images, method, same_state, snapshot, vit


def mask(n, seed=0, tokens=16):
    hidden = torch.rand(n, tokens, generator=torch.Generator().manual_seed(seed)) < 0.5
    return [TokenMask(hidden)], hidden


@pytest.mark.parametrize("channels", [1, 3])
def test_the_loss_equals_its_definition(channels):
    x, (_, hidden) = images(3, channels), mask(3)
    predicted = torch.randn(3, 16, 64 * channels, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    got = masked_l1(predicted, patchify(x.double(), 8), hidden)
    assert got.item() == pytest.approx(reference.simmim(x.numpy(), predicted.numpy(), hidden.numpy(), 8), rel=1e-6)


def test_hidden_pixels_do_not_reach_the_encoder_and_visible_ones_have_no_loss():
    m = method("simmim", vit(), mask_size=8)
    x, (masks, hidden) = images(2), mask(2)
    pixels = hidden.view(2, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    other = torch.where(pixels, torch.randn(x.shape), x)
    torch.testing.assert_close(m.predict(other, hidden), m.predict(x, hidden), rtol=0, atol=0)
    predicted = m.predict(x, hidden).requires_grad_()
    (gradient,) = torch.autograd.grad(masked_l1(predicted, patchify(x, 8), hidden), predicted)
    assert (gradient[~hidden] == 0).all()
    assert (gradient[hidden] != 0).all()
    assert m([x], masks, 0.0)["loss"] != m([other], masks, 0.0)["loss"]


@pytest.mark.parametrize("settings", [{"dynamic_img_size": True}, {"reg_tokens": 4}, {"class_token": False, "global_pool": "avg"}], ids=str)
def test_it_takes_every_plain_vit(settings):
    """With nothing hidden, the codes are timm's own."""
    m = method("simmim", vit(**settings), mask_size=8).eval()
    x, nothing = images(2), torch.zeros(2, 16, dtype=torch.bool)
    with torch.no_grad():
        want = m.pixels(m.vit.forward_features(x)[:, m.vit.num_prefix_tokens :])
        torch.testing.assert_close(m.predict(x, nothing), want)


def test_the_mask_is_that_of_the_paper_in_the_patches_of_the_network():
    spec = method("simmim", vit(size=224, patch=16), size=224).mask_spec()
    assert (spec.rows, spec.columns, spec.side, spec.ratio) == (14, 14, 2, 0.6)


@pytest.mark.parametrize(("size", "patch", "given", "better"), [(32, 8, 12, 8), (32, 8, 24, 16), (42, 14, 32, 42), (48, 8, 32, 24)])
def test_squares_that_do_not_fit_are_refused_with_the_nearest_that_does(size, patch, given, better):
    with pytest.raises(InputError, match=rf"mask_size={given}: .* choose method\.mask_size={better}$"):
        method("simmim", vit(size=size, patch=patch), size=size, mask_size=given)
    assert method("simmim", vit(size=size, patch=patch), size=size, mask_size=better).mask_spec().side == better // patch


def test_another_network_is_refused():
    with pytest.raises(InputError, match="method simmim needs a timm VisionTransformer, got ResNet"):
        method("simmim", cnn())


def test_a_reconstruction_keeps_the_visible_pixels():
    m = method("simmim", vit(), mask_size=8).eval()
    x, (masks, hidden) = images(2), mask(2)
    masked, rebuilt, target = (patchify(part, 8) for part in m.reconstruct([x], masks))
    assert torch.equal(target, patchify(x, 8))
    for part in (masked, rebuilt):
        assert torch.equal(part[~hidden], target[~hidden])
    assert (masked[hidden] == 0).all()
    with torch.no_grad():
        torch.testing.assert_close(rebuilt[hidden], m.predict(x, hidden)[hidden])


def test_random_weights_start_as_published_and_pretrained_ones_stay():
    """The last matrices of block l have the deviation 0.02 / sqrt(2 l), and a normal number cut at two deviations .880 of it."""
    m = method("simmim", vit(depth=3), mask_size=8)
    for depth, block in enumerate(m.vit.blocks, start=1):
        assert block.mlp.fc1.weight.std().item() == pytest.approx(0.02 * 0.8796, rel=0.05)
        assert block.mlp.fc2.weight.std().item() == pytest.approx(0.02 * 0.8796 / np.sqrt(2 * depth), rel=0.05)
        assert block.attn.proj.weight.std().item() == pytest.approx(0.02 * 0.8796 / np.sqrt(2 * depth), rel=0.08)
    torch.testing.assert_close(m.vit.pos_embed[:, 1:], sincos_2d(48, (4, 4)))
    assert not m.vit.pos_embed.requires_grad
    network = vit()
    before = snapshot(network)
    assert same_state(before, snapshot(method("simmim", network, pretrained=True, mask_size=8).vit))
    assert network.pos_embed.requires_grad
