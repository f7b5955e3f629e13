"""Small networks and batches that the tests of all methods share."""

import timm
import torch

from pretrain.methods import METHODS, DataShape
from pretrain.methods.precision import l2_normalize


def rows(n, d, seed):
    """(n, d) unit rows in float64."""
    return l2_normalize(torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


def images(n, channels=1, size=32, seed=0):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(seed))


def cnn(channels=1):
    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=0, in_chans=channels)


def vit(channels=1, size=32, patch=8, depth=2, **more):
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, in_chans=channels, img_size=size, patch_size=patch, depth=depth, embed_dim=48, **more
    )


def method(name, backbone=None, n_images=512, batch=16, size=32, channels=1, pretrained=False, seed=1, **cfg):
    backbone = backbone if backbone is not None else cnn(channels)
    torch.manual_seed(seed)
    kind = METHODS[name]
    return kind(kind.Config(**cfg), backbone, DataShape(n_images, size, channels, batch, pretrained)).train()


def step(m, views, masks=None, progress=0.0, lr=0.05):
    """One plain SGD step as the loop takes it; returns the loss."""
    out = m(views, masks, progress)
    out["loss"].backward()
    m.after_backward(progress)
    with torch.no_grad():
        for group in m.param_groups():
            for p in group["params"]:
                if p.grad is not None:
                    p -= lr * p.grad
                    p.grad = None
    m.after_step(progress)
    return out["loss"].item()


def snapshot(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same_state(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)
