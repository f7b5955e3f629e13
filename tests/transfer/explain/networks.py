"""Tiny networks with a head, and input for them."""

import timm
import torch
from torch import nn

from transfer.protocols.finetune_network import FinetuneNetwork

SIDE = 64


class HandMadeCnn(nn.Module):
    """One convolution as the map of features, the mean as pooling; the map is (B, D, h, w), or (B, h, w, D)."""

    num_features = 3

    def __init__(self, nhwc=False):
        super().__init__()
        self.conv, self.nhwc = nn.Conv2d(1, 3, 3, stride=2, padding=1), nhwc
        if nhwc:
            self.output_fmt = "NHWC"

    def forward_features(self, x):
        features = self.conv(x).relu()
        return features.permute(0, 2, 3, 1) if self.nhwc else features

    def forward_head(self, x):
        flat = x if self.nhwc else x.permute(0, 2, 3, 1)
        weight = torch.linspace(0.5, 1.5, flat.shape[1])[None, :, None, None]  # the gradient is not the same everywhere
        return (flat * weight).square().mean((1, 2))

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


def hand_made(nhwc=False, outputs=2):
    """The network by hand with a head."""
    torch.manual_seed(0)
    network = FinetuneNetwork(HandMadeCnn(nhwc), 3, outputs).double().eval()
    with torch.no_grad():
        network.head.weight.copy_(torch.randn(outputs, 3, dtype=torch.float64))
        network.head.bias.copy_(torch.randn(outputs, dtype=torch.float64))
    return network


def timm_network(arch, side=SIDE, outputs=2, **more):
    """A timm network of one channel with a head."""
    torch.manual_seed(0)
    model = timm.create_model(arch, num_classes=0, in_chans=1, **more)
    width = model.head_hidden_size if getattr(model, "head_hidden_size", None) else model.num_features
    network = FinetuneNetwork(model, width, outputs).eval()
    with torch.no_grad():
        network.head.weight.copy_(torch.randn(outputs, width))
    return network


def random_images(n=2, side=SIDE, dtype=torch.float32):
    """(n, 1, side, side) noise."""
    return torch.randn(n, 1, side, side, generator=torch.Generator().manual_seed(1)).to(dtype)
