"""MAE against its paper: targets, loss on hidden patches only, and an encoder that is timm's own."""

import numpy as np
import pytest
import torch

from encoders.augment.masks import draw_mask
from encoders.runtime.errors import InputError
from pretrain.loop.setup import build_setup
from pretrain.methods.mae import masked_mse
from pretrain.methods.positions import sincos_2d
from pretrain.methods.vit_tokens import gather_tokens, patchify, unpatchify
from tests import reference
from tests.pretrain.runs import SHORT, recipe, store
from tests.pretrain.tiny import cnn, images, method, same_state, snapshot, step, vit

SMALL = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}


def masks(n, tokens=16, ratio=0.75, seed=0):
    keep, masked = draw_mask(seed, np.arange(n), tokens, ratio)
    return torch.from_numpy(keep), torch.from_numpy(masked)


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_are_cut_as_in_the_paper_and_put_back(channels):
    x = images(2, channels, 24)
    cut = patchify(x, 8)
    assert cut.shape == (2, 9, 64 * channels)
    np.testing.assert_array_equal(cut[1].numpy(), reference.patches(x[1].numpy(), 8))
    assert torch.equal(unpatchify(cut, 8, 3), x)


def test_patches_of_an_oblong_image_are_put_back():
    x = torch.randn(1, 3, 16, 40)
    assert torch.equal(unpatchify(patchify(x, 8), 8, 2), x)


@pytest.mark.parametrize("norm_pix", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_loss_equals_its_definition(norm_pix, channels):
    x = images(3, channels).double()
    predicted = torch.randn(3, 16, 64 * channels, dtype=torch.float64)
    _, masked = masks(3)
    want = reference.mae(x.numpy(), predicted.numpy(), masked.numpy(), 8, norm_pix)
    got = masked_mse(gather_tokens(predicted, masked), gather_tokens(patchify(x, 8), masked), norm_pix)
    assert got.item() == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize("norm_pix", [True, False])
def test_the_method_computes_that_loss_from_its_decoder(norm_pix):
    m = method("mae", vit(), norm_pix_loss=norm_pix, **SMALL).eval()
    x, (keep, masked) = images(4), masks(4)
    predicted = m.decoder(m.encode(x, keep), keep).detach().numpy()
    want = reference.mae(x.numpy(), predicted, masked.numpy(), 8, norm_pix)
    assert m([x], [(keep, masked)], 0.0)["loss"].item() == pytest.approx(want, rel=1e-6)


def test_a_flat_patch_has_a_finite_loss_and_gradient():
    predicted = torch.randn(1, 2, 64, requires_grad=True)
    masked_mse(predicted, torch.ones(1, 2, 64), True).backward()
    assert torch.isfinite(predicted.grad).all()


def test_the_loss_is_float32_under_autocast():
    m = method("mae", vit(), **SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        assert m([images(4)], [masks(4)], 0.0)["loss"].dtype == torch.float32


KINDS = {
    "class": {},
    "none": {"class_token": False, "global_pool": "avg", "fc_norm": False},
    "registers": {"reg_tokens": 4},
    "no_embed": {"no_embed_class": True, "reg_tokens": 2},
    "dynamic": {"dynamic_img_size": True},
    "pre_norm": {"pre_norm": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_with_nothing_hidden_the_encoder_is_timms_own(kind):
    m = method("mae", vit(**KINDS[kind]), **SMALL).eval()
    x = images(2)
    everything = torch.arange(16).expand(2, -1)
    torch.testing.assert_close(m.encode(x, everything), m.encoder().forward_features(x))
    assert set(m.encoder().state_dict()) == set(vit(**KINDS[kind]).state_dict())


def test_the_encoder_does_not_see_hidden_patches():
    m = method("mae", vit(reg_tokens=4), **SMALL).eval()
    x, (keep, masked) = images(2), masks(2)
    cut = patchify(x, 8)
    other = unpatchify(cut.scatter(1, masked[..., None].expand(-1, -1, 64), 9.0), 8, 4)
    assert torch.equal(m.encode(x, keep), m.encode(other, keep))
    assert m.encode(x, keep).shape[1] == 5 + 4  # class, four registers, a quarter of 16


def test_the_order_of_visible_patches_does_not_matter():
    m = method("mae", vit(), **SMALL).eval()
    x, (keep, masked) = images(2), masks(2)
    loss = m([x], [(keep, masked)], 0.0)["loss"].item()
    assert m([x], [(keep.flip(1), masked.flip(1))], 0.0)["loss"].item() == pytest.approx(loss, rel=1e-5)


def test_the_decoder_puts_codes_in_their_positions():
    m = method("mae", vit(), **SMALL)
    m.decoder.blocks, m.decoder.norm, m.decoder.pixels = torch.nn.Identity(), torch.nn.Identity(), torch.nn.Identity()
    x, (keep, masked) = images(1), masks(1)
    codes = m.encode(x, keep)
    full = m.decoder(codes, keep) - m.decoder.positions
    torch.testing.assert_close(full[0, keep[0]], m.decoder.embed(codes)[0, 1:])
    torch.testing.assert_close(full[0, masked[0]], m.decoder.mask_token[0].expand(len(masked[0]), -1))


@pytest.mark.parametrize("grid", [(4, 4), (2, 5)])
def test_positions_equal_their_definition(grid):
    np.testing.assert_allclose(sincos_2d(16, grid)[0].numpy(), reference.sincos(16, *grid), atol=1e-6)


def test_a_fresh_encoder_starts_as_published():
    m = method("mae", vit(), **SMALL)
    bound = (6 / (48 + 3 * 48)) ** 0.5
    qkv = m.vit.blocks[0].attn.qkv
    assert 0.95 * bound < qkv.weight.abs().max() <= bound
    assert not qkv.bias.any()
    kernel = m.vit.patch_embed.proj.weight
    assert kernel.abs().max() <= (6 / (48 + 64)) ** 0.5
    np.testing.assert_allclose(m.vit.pos_embed[0, 1:].numpy(), reference.sincos(48, 4, 4), atol=1e-6)
    assert not m.vit.pos_embed[0, 0].any()
    assert not m.vit.pos_embed.requires_grad


def test_weights_from_another_encoder_are_kept():
    backbone = vit()
    before = snapshot(backbone)
    m = method("mae", backbone, pretrained=True, **SMALL)
    assert same_state(before, snapshot(m.encoder()))
    fresh = vit()
    method("mae", fresh, **SMALL)
    assert not same_state(before, snapshot(fresh))


def test_tokens_norms_and_biases_are_not_decayed():
    m = method("mae", vit(reg_tokens=2), pretrained=True, **SMALL)
    names = {id(p): n for n, p in m.named_parameters()}
    free = {names[id(p)] for g in m.param_groups() if g.get("weight_decay") == 0.0 for p in g["params"]}
    decayed = {names[id(p)] for g in m.param_groups() if "weight_decay" not in g for p in g["params"]}
    assert {"vit.cls_token", "vit.pos_embed", "vit.reg_token", "decoder.mask_token", "vit.norm.weight", "decoder.pixels.bias"} <= free
    assert {"vit.blocks.0.attn.qkv.weight", "vit.patch_embed.proj.weight", "decoder.pixels.weight"} <= decayed
    assert not free & decayed
    assert free | decayed == {n for n, p in m.named_parameters() if p.requires_grad}


def test_what_is_hidden_is_what_the_published_code_hides():
    m = method("mae", vit(), mask_ratio=0.9, **SMALL)
    spec = m.mask_spec()
    assert (spec.tokens, spec.ratio) == (16, 0.9)
    keep, _ = draw_mask(0, np.arange(2), spec.tokens, spec.ratio)
    assert keep.shape[1] == int(16 * (1 - 0.9)) == 1
    assert len(m.views("view")) == 1


@pytest.mark.parametrize("norm_pix", [True, False])
def test_a_reconstruction_is_in_the_units_of_its_input(norm_pix):
    m = method("mae", vit(), norm_pix_loss=norm_pix, **SMALL).eval()
    x, (keep, masked) = 3 * images(2) + 5, masks(2)
    shown, rebuilt, target = m.reconstruct([x], [(keep, masked)])
    assert torch.equal(target, x)
    cut = patchify(x, 8)
    torch.testing.assert_close(gather_tokens(patchify(rebuilt, 8), keep), gather_tokens(cut, keep))
    torch.testing.assert_close(gather_tokens(patchify(shown, 8), keep), gather_tokens(cut, keep))
    assert not gather_tokens(patchify(shown, 8), masked).any()
    # the definition backwards: normalising the picture by the target's moments gives the loss that forward reports
    hidden = gather_tokens(patchify(rebuilt, 8), masked)
    mean, var = gather_tokens(cut, masked).mean(-1, keepdim=True), gather_tokens(cut, masked).var(-1, keepdim=True)
    scale = (var + 1e-6).sqrt() if norm_pix else torch.ones_like(var)
    error = (((hidden - mean) / scale - (gather_tokens(cut, masked) - mean) / scale) ** 2).mean()
    assert m([x], [(keep, masked)], 0.0)["loss"].item() == pytest.approx(error.item(), rel=1e-4)


def test_the_loss_falls_on_a_few_images():
    m = method("mae", vit(), **SMALL)
    x = torch.nn.functional.interpolate(images(8, size=4), size=32, mode="bilinear")  # smooth, so that hidden patches can be inferred
    optimizer = torch.optim.AdamW([{"params": g["params"]} for g in m.param_groups()], lr=2e-3)
    losses = []
    for i in range(60):
        loss = m([x], [masks(8, seed=i)], 0.0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.8 * losses[0]


def test_a_step_touches_encoder_and_decoder_but_no_position_table():
    m = method("mae", vit(), **SMALL)
    before = snapshot(m)
    step(m, [images(4)], [masks(4)])
    after = snapshot(m)
    still = {n for n in before if torch.equal(before[n], after[n])}
    assert still == {"vit.pos_embed"}


def test_a_network_without_patches_is_refused():
    with pytest.raises(InputError, match="VisionTransformer"):
        method("mae", cnn(), **SMALL)


def test_a_recipe_with_a_network_without_patches_is_refused(tmp_path):
    with pytest.raises(InputError, match="method mae needs a plain ViT; arch=resnet18 is none"):
        build_setup(recipe(store(tmp_path), ["cxr_mae_tiny", "arch=resnet18", "model_args={}", *SHORT]), "cpu")
