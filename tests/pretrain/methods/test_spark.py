"""SparK against its paper: what is hidden, densified and predicted, and an encoder that is timm's own."""

import numpy as np
import pytest
import timm
import torch

from encoders.runtime.errors import InputError
from encoders.zoo.batchnorm import freeze_statistics
from pretrain.loop.setup import build_setup
from tests.pretrain.methods.test_masked_cnn import visible_at
from tests.pretrain.runs import SHORT, recipe, store
from tests.pretrain.tiny import cnn, images, method, same_state, snapshot, step, vit

PATCH = 8


def small(backbone=None, **settings):
    return method("spark", backbone or cnn(output_stride=8), **({"decoder_width": 32} | settings))


def masks(m, n=4, seed=0):
    return m.mask_spec().draw(seed, np.arange(n), 0)


def hidden_at(m, subset):
    """(B, 1, H, W) bool, true for pixels of hidden patches."""
    return ~visible_at(m.masked, subset, 1)


@pytest.mark.parametrize(
    ("size", "ratio", "visible"), [(224, 0.6, 20), (224, 0.75, 12), (64, 0.6, 2), (384, 0.75, 36)]
)  # round(49 * 0.4) is 20; MAE would show 19
def test_as_many_patches_are_visible_as_in_the_published_code(size, ratio, visible):
    m = method("spark", cnn(), size=size, mask_ratio=ratio, decoder_width=32)
    assert m.patch_side == 32
    assert m.grid == (size // 32, size // 32)
    subset = masks(m)
    assert subset.keep.shape == (4, visible)
    assert subset.masked.shape == (4, (size // 32) ** 2 - visible)
    assert len(m.views("view")) == 1


def test_pixels_of_hidden_patches_enter_the_loss_as_targets_only():
    m = small()
    x, subset, outputs = images(4), masks(m := small()), []
    m.pixels.register_forward_hook(lambda layer, given, out: outputs.append(out))
    other = torch.where(hidden_at(m, subset), 3 * images(4, seed=9), x)
    a, b = (m([views], [subset], 0.0)["loss"].item() for views in (x, other))
    assert torch.equal(*outputs)
    assert a != b
    seen = torch.where(hidden_at(m, subset), x, x + images(4, seed=9))
    m([seen], [subset], 0.0)
    assert not torch.equal(outputs[0], outputs[2])


def test_the_loss_ignores_predictions_of_visible_patches():
    m = small()
    x, subset = images(4), masks(m)
    plain = m([x], [subset], 0.0)["loss"].item()
    m.pixels.register_forward_hook(lambda layer, given, out: torch.where(hidden_at(m, subset), out, 1e3))
    assert m([x], [subset], 0.0)["loss"].item() == plain
    m.pixels.register_forward_hook(lambda layer, given, out: out + 1)
    assert m([x], [subset], 0.0)["loss"].item() != plain


def test_maps_of_every_stride_reach_the_decoder_at_their_resolution():
    """Strides 4 to 32 of a ResNet; the widths are those of the published code, here 64 in place of 768."""
    m = method("spark", timm.create_model("resnet18", num_classes=0, in_chans=1), size=64, decoder_width=64)
    assert {stride: part.norm.num_features for stride, part in m.densify.items()} == {"4": 64, "8": 128, "16": 256, "32": 512}
    kernels = {stride: (part.project.out_channels, part.project.kernel_size) for stride, part in m.densify.items()}
    assert kernels == {"4": (8, (3, 3)), "8": (16, (3, 3)), "16": (32, (3, 3)), "32": (64, (1, 1))}
    assert [block[1].in_channels for block in m.decoder] == [64, 32, 16, 8, 4]
    assert (m.pixels.in_channels, m.pixels.out_channels) == (2, 1)
    assert m.predict(images(2, size=64), masks(m, 2)).shape == (2, 1, 64, 64)
    equal = method("spark", timm.create_model("resnet18", num_classes=0, in_chans=1), size=64, decoder_width=512)
    assert isinstance(equal.densify["32"].project, torch.nn.Identity)  # as published, where the widths agree


def test_a_flat_hidden_patch_has_a_finite_loss_and_gradient():
    m = small()
    m([torch.ones(4, 1, 32, 32)], [masks(m)], 0.0)["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in m.parameters() if p.grad is not None)


def test_the_decoder_starts_as_published_and_the_encoder_as_timm_made_it():
    backbone = cnn(output_stride=8)
    before = snapshot(backbone)
    m = method("spark", backbone, decoder_width=256)
    assert same_state(before, snapshot(m.encoder()))
    up, conv = m.decoder[0][0], m.decoder[0][1]
    assert conv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert up.weight.std().item() == pytest.approx((2 / (256 * 16)) ** 0.5, rel=0.05)
    assert not any(layer.bias.any() for layer in (up, m.pixels))
    embedding = m.densify["8"].mask_embedding
    assert 0 < embedding.abs().max() <= 0.02


@pytest.mark.parametrize("channels", [1, 3])
def test_a_reconstruction_is_in_the_units_of_its_input(channels):
    m = method("spark", cnn(channels, output_stride=8), channels=channels, decoder_width=32).eval()
    x, subset = 3 * images(2, channels) + 5, masks(m, 2)
    hidden = hidden_at(m, subset).expand_as(x)
    shown, rebuilt, target = m.reconstruct([x], [subset])
    assert torch.equal(target, x)
    assert torch.equal(shown, torch.where(hidden, 0.0, x))
    assert torch.equal(rebuilt[~hidden], x[~hidden])
    # the definition backwards: normalising the picture by the target's moments gives the loss that forward reports
    errors = []
    for b, i in zip(*np.nonzero(subset.hidden.numpy()), strict=True):
        row, column = divmod(int(i), 4)
        at = (b, slice(None), slice(row * PATCH, (row + 1) * PATCH), slice(column * PATCH, (column + 1) * PATCH))
        errors.append((((rebuilt[at] - x[at]) ** 2).mean() / (x[at].var() + 1e-6)).item())
    assert m([x], [subset], 0.0)["loss"].item() == pytest.approx(np.mean(errors), rel=1e-4)


def test_vectors_and_mask_embeddings_are_not_decayed():
    m = small()
    names = {id(p): name for name, p in m.named_parameters()}
    free = {names[id(p)] for g in m.param_groups() if g.get("weight_decay") == 0.0 for p in g["params"]}
    assert {"densify.4.mask_embedding", "densify.8.norm.weight", "backbone.bn1.weight", "pixels.bias"} <= free
    assert "backbone.layer1.0.conv1.weight" not in free


@pytest.mark.parametrize(
    ("arch", "args"),
    [
        ("densenet121", {"growth_rate": 4, "block_config": (1, 1, 1, 1)}),
        ("convnext_atto", {"dims": (4, 4, 4, 8), "depths": (1, 1, 1, 1)}),
    ],
)
def test_other_families_train_and_are_exported_as_timm_builds_them(arch, args):
    m = method("spark", timm.create_model(arch, num_classes=0, in_chans=1, **args), size=64, decoder_width=32)
    untouched = {name for name, p in m.named_parameters() if not p.requires_grad}
    assert untouched == ({"backbone.head.norm.weight", "backbone.head.norm.bias"} if "convnext" in arch else set())
    m([images(4, size=64)], [masks(m)], 0.0)["loss"].backward()
    assert {name for name, p in m.named_parameters() if p.grad is None or not p.grad.any()} == untouched
    plain = timm.create_model(arch, num_classes=0, in_chans=1, **args).eval()
    plain.load_state_dict(m.encoder().state_dict(), strict=True)
    assert torch.equal(plain(images(2, size=64)), m.eval().encoder()(images(2, size=64)))


def test_frozen_statistics_of_a_pretrained_backbone_stay():
    backbone = cnn(output_stride=8)
    freeze_statistics(backbone)
    m = small(backbone, pretrained=True)
    step(m, [images(4)], [masks(m)])
    assert not any(buffer.any() for name, buffer in m.backbone.named_buffers() if "running_mean" in name)
    assert m.densify["8"].norm.running_mean.any()


def test_the_encoder_is_unmasked_between_steps_also_with_gradient_checkpointing():
    m = small()
    m.backbone.set_grad_checkpointing(True)
    step(m, [images(4)], [masks(m)])
    plain = cnn(output_stride=8).eval()
    plain.load_state_dict(m.encoder().state_dict())
    assert torch.equal(m.eval().encoder()(images(3)), plain(images(3)))


def test_few_patches_are_noted_and_too_few_refused():
    assert "4 patches of 32 px; 16 or more are advised" in method("spark", cnn(), size=64, decoder_width=32).notes(None)[0]
    assert small().notes(None) == []
    with pytest.raises(InputError, match=r"mask_ratio=0.6 shows 0 of 1 patches of 32 px; use size=128 or more"):
        method("spark", cnn(), decoder_width=32)
    with pytest.raises(InputError, match="decoder_width=30 must be a multiple of 8"):
        small(decoder_width=30)


def test_a_network_that_cannot_be_masked_is_refused(tmp_path):
    with pytest.raises(InputError, match="VisionTransformer cannot be masked; choose a ResNet, DenseNet or ConvNeXt"):
        small(vit())
    words = ["cxr_spark_tiny", "arch=mobilenetv2_100", *SHORT]
    with pytest.raises(InputError, match="EfficientNet cannot be masked"):
        build_setup(recipe(store(tmp_path), words), "cpu")
