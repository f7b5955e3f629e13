"""Convolutions whose gradient a CPU computes wrongly in bf16.

oneDNN 3.12 (in torch 2.14) computes the weights' gradient of a bf16 convolution wrongly where the image is narrower than the stride. Only
the middle of the kernel touches the image then; the gradient of the other weights is 0, and oneDNN leaves there what the memory held:
numbers up to 1e38, NaN, or by chance 0. Known so far for CNNs with a total stride of 32 on crops of 16 pixels or fewer. Convolutions of
one channel each (depthwise) and float32 are not affected.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def has_wrong_bf16_gradient(network: nn.Module, channels: int, sizes: Iterable[int]) -> bool:
    """Whether a convolution of `network` sees an image narrower than its stride when the network is given images of one of these sides.

    sizes: pixels. One image of each size is passed through the network in evaluation mode; its modes are restored."""
    found: list[nn.Conv2d] = []

    def look(layer: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].shape[-1] < layer.stride[1]:
            found.append(layer)

    layers = [
        layer
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d) and layer.stride[1] > 1 and layer.kernel_size[1] > 1 and layer.groups < layer.in_channels
    ]
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    modes = [(layer, layer.training) for layer in network.modules()]
    weight = next(network.parameters())
    try:
        network.eval()
        for size in sorted(set(sizes)) if layers else ():
            network(weight.new_zeros(1, channels, size, size))
    finally:
        for hook in hooks:
            hook.remove()
        for layer, training in modes:
            layer.training = training
    return bool(found)


def describe_wrong_gradient(arch: str, sizes: Iterable[int]) -> str:
    """The message about a network that would be trained in bf16 on images of these sides (pixels)."""
    return (
        f"torch on a CPU computes bf16 gradients of {arch} wrongly for images of {min(sizes)} pixels, because a convolution sees images "
        "narrower than its stride: use precision=fp32 or auto, larger images, or larger local crops"
    )
