"""Convolutions whose bf16 gradient torch computes wrongly on a CPU: which networks have them, and that none is trained so."""

import pytest
import timm
import torch
from torch import nn

from encoders.runtime.cpu_bf16 import has_wrong_bf16_gradient
from encoders.runtime.errors import InputError
from pretrain.loop.setup import build_setup
from tests.pretrain.runs import recipe, store

NARROW = ["cxr_dino_tiny", "arch=test_resnet", "model_args={}", "method.prototypes=16", "steps=4", "warmup_steps=1", "batch=16", "size=32"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return store(tmp_path_factory.mktemp("bf16"))


def bf16_gradient_is_wrong(width, stride, kernel, groups=1):
    """Whether oneDNN leaves numbers in the gradient that are not of this convolution: memory is filled with NaN before it runs."""
    torch.manual_seed(0)
    image, weight = torch.randn(8, 64, 4, width).bfloat16(), torch.randn(64, 64 // groups, kernel, kernel).bfloat16()
    place = ([stride, stride], [kernel // 2] * 2, [1, 1], False, [0, 0], groups)
    upstream = torch.randn_like(torch.ops.aten.convolution(image, weight, None, *place))

    def gradient(*tensors):
        return torch.ops.aten.convolution_backward(*tensors, None, *place, [False, True, False])[1].float()

    want = gradient(upstream.float(), image.float(), weight.float())
    for _ in range(5):
        filled = [torch.full((n,), float("nan")) for n in (weight.numel(), weight.numel() // 2, 2 * weight.numel())]
        del filled
        if not (gradient(upstream, image, weight) - want).abs().max() <= 0.05 * want.abs().max():
            return True
    return False


@pytest.mark.parametrize("groups", [1, 8, 64], ids=["one group", "8 groups", "depthwise"])
@pytest.mark.parametrize("kernel", [2, 3, 7])
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 9])
def test_every_wrong_gradient_is_found(width, stride, kernel, groups):
    layer = nn.Conv2d(64, 64, kernel, stride, kernel // 2, groups=groups)
    found = has_wrong_bf16_gradient(layer, 64, [width])
    if not found:
        assert not bf16_gradient_is_wrong(width, stride, kernel, groups), "a later torch has more such convolutions"
    assert found == (width < stride and groups < 64)


@pytest.mark.parametrize(("arch", "largest"), [("test_resnet", 16), ("resnet18", 16), ("mobilenetv2_050", 0), ("vit_tiny_patch16_224", 0)])
def test_the_sizes_of_images_that_are_too_small(arch, largest):
    network = timm.create_model(arch, num_classes=0, **({"dynamic_img_size": True} if "vit" in arch else {})).train()
    sizes = (8, 16, 17, 32, 64) if largest else (16, 32, 64)
    modes = [layer.training for layer in network.modules()]
    statistics = {name: buffer.clone() for name, buffer in network.named_buffers()}
    assert [size for size in sizes if has_wrong_bf16_gradient(network, 3, [224, size])] == [s for s in sizes if s <= largest]
    assert [layer.training for layer in network.modules()] == modes
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in network.named_buffers())


def test_a_run_uses_bf16_only_where_its_gradients_are_right(images, monkeypatch):
    monkeypatch.setattr("pretrain.loop.setup.has_bf16", lambda device: True)
    precision = {
        (size, asked): build_setup(recipe(images, [*NARROW, f"method.local_size={size}", f"precision={asked}"]), "cpu").recipe.precision
        for size, asked in ((14, "auto"), (14, "fp32"), (24, "auto"), (24, "bf16"))
    }
    assert precision == {(14, "auto"): "fp32", (14, "fp32"): "fp32", (24, "auto"): "bf16", (24, "bf16"): "bf16"}
    with pytest.raises(InputError, match="images of 14 pixels, .* use precision=fp32"):
        build_setup(recipe(images, [*NARROW, "method.local_size=14", "precision=bf16"]), "cpu")
