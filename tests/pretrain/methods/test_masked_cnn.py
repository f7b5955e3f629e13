"""A masked CNN computes sparse convolution on the visible patches, and is timm's own network otherwise."""

from copy import deepcopy

import numpy as np
import pytest
import timm
import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from encoders.augment.masks import RandomTokens
from encoders.runtime.errors import InputError
from encoders.zoo.batchnorm import freeze_statistics, list_statistics_layers
from pretrain.loop.batchnorm import SyncBatchNorm, convert_sync_batchnorm
from pretrain.methods.masked_cnn import MaskedCNN
from tests.pretrain.methods import sparse_resnet
from tests.pretrain.tiny import same_state, snapshot

# Networks of each family, as small as timm's constructors make them; the second value is the side of the images.
NETWORKS = {
    "resnet18": ({"channels": (4, 4, 4, 4)}, 64),
    "resnet26": ({"channels": (4, 4, 4, 4), "layers": (1, 1, 2, 1), "output_stride": 8, "replace_stem_pool": True}, 32),
    "resnet26d": ({"channels": (4, 4, 4, 4), "layers": (1, 1, 1, 1)}, 64),
    "resnetaa50": ({"channels": (4, 4, 4, 4), "layers": (1, 1, 1, 1)}, 64),
    "densenet121": ({"growth_rate": 4, "block_config": (2, 2, 2, 2)}, 64),
    "densenetblur121d": ({"growth_rate": 4, "block_config": (2, 1, 1, 1)}, 64),
    "convnext_atto": ({"dims": (4, 4, 4, 8), "depths": (1, 1, 1, 1)}, 64),
    "convnext_tiny": ({"dims": (4, 4, 4, 8), "depths": (1, 1, 2, 1), "output_stride": 8}, 32),
}
ALL = pytest.mark.parametrize("arch", NETWORKS)


def build(arch):
    """The network and its masked form, in training mode, with scales that let every branch count."""
    args, size = NETWORKS[arch]
    torch.manual_seed(0)
    network = timm.create_model(arch, num_classes=0, in_chans=2, **args).train()
    for p in network.parameters():
        if p.ndim == 1:
            nn.init.uniform_(p, 0.5, 1.5)  # not the zeros of a residual branch's last norm, nor layer scales of 1e-6
    return network, MaskedCNN(network, size)


def draw(masked, n=3, ratio=0.5, seed=0):
    return RandomTokens(tokens=masked.grid[0] * masked.grid[1], ratio=ratio).draw(seed, np.arange(n), 0)


def noise(masked, n=3):
    size = masked.grid[0] * masked.patch_side
    return torch.randn(n, 2, size, size, generator=torch.Generator().manual_seed(1))


def visible_at(masked, masks, stride):
    """(B, 1, H, W) bool of a map, written without einops."""
    per_patch = masked.patch_side // stride
    seen = ~masks.hidden.view(-1, 1, *masked.grid)
    return seen.repeat_interleave(per_patch, 2).repeat_interleave(per_patch, 3)


def test_the_visible_positions_are_those_of_sparse_convolution_and_so_are_the_statistics():
    torch.manual_seed(0)
    network = ResNet(BasicBlock, [1, 1, 2, 1], channels=(3, 4, 5, 6), output_stride=16, in_chans=2, num_classes=0).double().train()
    for layer in list_statistics_layers(network):
        nn.init.uniform_(layer.weight, 0.5, 1.5)
        nn.init.normal_(layer.bias)
    masked = MaskedCNN(network, 64)
    assert (masked.grid, masked.strides, masked.widths) == ((4, 4), (4, 8, 16), (3, 4, 6))
    masks = draw(masked, 2, 0.6)
    images = torch.randn(2, 2, 64, 64, dtype=torch.float64)
    found, seen = sparse_resnet.stages(network, images.numpy(), ~masks.hidden.view(2, 4, 4).numpy(), 16)
    maps = masked.maps(images, masks)
    for got, want in zip(maps, [found[0], found[1], found[3]], strict=True):
        values = np.array([got[b, :, y, x].detach().numpy() for b, y, x in want])
        np.testing.assert_allclose(values, list(want.values()), rtol=1e-9, atol=1e-9)
    layers = list_statistics_layers(network)
    assert set(layers) == set(seen)
    for layer in layers:
        mean, var, n = seen[layer]
        assert n < 2 * 32 * 32 / 2  # not of the whole map
        np.testing.assert_allclose(layer.running_mean.numpy(), 0.1 * mean, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(layer.running_var.numpy(), 0.9 + 0.1 * var, rtol=1e-9)
        assert layer.num_batches_tracked == 1


@ALL
def test_pixels_of_hidden_patches_change_no_visible_position_and_no_statistics(arch):
    network, masked = build(arch)
    masks, images = draw(masked), noise(masked)
    other = torch.where(visible_at(masked, masks, 1), images, 100.0)
    start = snapshot(network)
    maps = masked.maps(images, masks)
    first = snapshot(network)
    network.load_state_dict(start)
    for a, b, stride in zip(maps, masked.maps(other, masks), masked.strides, strict=True):
        seen = visible_at(masked, masks, stride).expand_as(a)
        assert torch.equal(a[seen], b[seen])
        assert a[seen].std() > 0.01
    assert same_state(first, snapshot(network))


@ALL
def test_pixels_of_visible_patches_change_other_visible_patches(arch):
    network, masked = build(arch)
    network.eval()
    masks, images = draw(masked, 1, 0.2), noise(masked, 1)
    other = images.clone()
    row, column = divmod(masks.keep[0, 0].item(), masked.grid[1])
    side = masked.patch_side
    other[:, :, row * side : (row + 1) * side, column * side : (column + 1) * side] += 1.0
    a, b = masked.maps(images, masks)[-1], masked.maps(other, masks)[-1]
    changed = (a != b).any(1)[0].flatten()[masks.keep[0]]
    assert changed[0]
    assert changed.sum() > 1


@ALL
@pytest.mark.parametrize("training", [True, False])
def test_with_nothing_hidden_it_is_timms_network(arch, training):
    network, masked = build(arch)
    twin = deepcopy(network).train(training)
    network.train(training)
    images, everything = noise(masked), draw(masked, ratio=0.0)
    maps = masked.maps(images, everything)
    plain = twin.forward_intermediates(images, intermediates_only=True)
    for got, i in zip(maps, masked.used, strict=True):
        torch.testing.assert_close(got, plain[i], rtol=1e-4, atol=1e-4)
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=1e-4, atol=1e-5)


@ALL
def test_outside_of_maps_it_is_timms_network(arch):
    network, masked = build(arch)
    args, _ = NETWORKS[arch]
    plain = timm.create_model(arch, num_classes=0, in_chans=2, **args)
    masked.maps(noise(masked), draw(masked))[-1].sum().backward()
    plain.load_state_dict(network.state_dict(), strict=True)
    assert torch.equal(network.eval()(noise(masked)), plain.eval()(noise(masked)))


@pytest.mark.parametrize("arch", ["resnet18", "densenet121", "densenetblur121d"])
def test_each_batchnorm_sees_exactly_the_visible_positions(arch):
    network, masked = build(arch)
    masks, inputs = draw(masked), {}
    for layer in list_statistics_layers(network):
        layer.register_forward_pre_hook(lambda layer, given: inputs.update({layer: given[0].detach()}), prepend=True)
    masked.maps(noise(masked), masks)
    assert inputs.keys() == set(list_statistics_layers(network))
    for layer, x in inputs.items():
        stride = masked.grid[0] * masked.patch_side // x.shape[2]
        values = x.movedim(1, -1)[visible_at(masked, masks, stride)[:, 0]]
        torch.testing.assert_close(layer.running_mean, 0.1 * values.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * values.var(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", ["resnet18", "densenet121"])
def test_frozen_statistics_stay_and_the_positions_are_still_hidden(arch):
    network, masked = build(arch)
    freeze_statistics(network.train())
    before, masks, images = snapshot(network), draw(masked), noise(masked)
    a = masked.maps(images, masks)[-1]
    b = masked.maps(torch.where(visible_at(masked, masks, 1), images, -9.0), masks)[-1]
    seen = visible_at(masked, masks, masked.patch_side).expand_as(a)
    assert torch.equal(a[seen], b[seen])
    assert same_state(before, snapshot(network))


@pytest.mark.parametrize("arch", ["resnet18", "densenet121"])
def test_norms_over_all_ranks_see_visible_positions_too(arch):
    network, masked = build(arch)
    twin = deepcopy(network)
    other = MaskedCNN(twin, NETWORKS[arch][1])
    convert_sync_batchnorm(twin)
    assert {type(layer) for layer in list_statistics_layers(twin)} == {SyncBatchNorm}
    masks, images = draw(masked), noise(masked)
    for a, b, stride in zip(masked.maps(images, masks), other.maps(images, masks), masked.strides, strict=True):
        seen = visible_at(masked, masks, stride).expand_as(a)
        torch.testing.assert_close(a[seen], b[seen])
    torch.testing.assert_close(network.state_dict(), twin.state_dict())


@pytest.mark.parametrize("arch", ["resnet18", "densenet121", "convnext_atto"])
def test_gradient_checkpointing_gives_the_same_gradients(arch):
    network, masked = build(arch)
    masks, images = draw(masked), noise(masked)

    def gradients():
        network.zero_grad()
        maps = masked.maps(images, masks)
        sum((m * visible_at(masked, masks, s)).square().mean() for m, s in zip(maps, masked.strides, strict=True)).backward()
        masked.end()
        return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}

    plain = gradients()
    network.set_grad_checkpointing(True)
    assert masked.recomputes
    torch.testing.assert_close(gradients(), plain)


def test_a_network_that_waits_for_its_backward_pass_gives_no_masked_features():
    network, masked = build("resnet18")
    network.set_grad_checkpointing(True)
    maps = masked.maps(noise(masked), draw(masked))
    with pytest.raises(InputError, match="leave out checkpointing or the other loss"):
        network(noise(masked))
    maps[-1].sum().backward()
    masked.end()
    network(noise(masked))


def test_an_error_inside_leaves_the_network_unmasked():
    _, masked = build("resnet18")
    with pytest.raises(RuntimeError):
        masked.maps(torch.zeros(3, 5, 64, 64), draw(masked))  # five channels
    assert masked.hidden is None


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("seresnet18", r"layer1.0.se \(SEModule\)"),
        ("ecaresnet50d", r"layer1.0.se \(EcaModule\)"),
        ("skresnet18", r"layer1.0 \(SelectiveKernelBasic\)"),
        ("resnet50_gn", r"bn1 \(GroupNorm\)"),
        ("convnextv2_atto", "GlobalResponseNorm"),
        ("res2net50_26w_4s", "Bottle2neck"),
        ("efficientnet_b0", "type EfficientNet cannot be masked; choose a ResNet, DenseNet or ConvNeXt"),
        ("vit_tiny_patch16_224", "type VisionTransformer cannot be masked"),
    ],
)
def test_a_network_that_would_read_hidden_patches_is_refused(arch, message):
    with torch.device("meta"):
        network = timm.create_model(arch, num_classes=0)
    with pytest.raises(InputError, match=message):
        MaskedCNN(network, 64)


@pytest.mark.parametrize(("size", "advice"), [(100, "use 96 or 128"), (20, "use 32 or more")])
def test_a_size_that_the_stride_does_not_divide_is_refused(size, advice):
    with pytest.raises(InputError, match=f"size={size} is no multiple of 32.*{advice}"):
        MaskedCNN(timm.create_model("resnet10t", num_classes=0), size)
