"""Small networks, methods and batches that the tests of all methods share."""

import numpy as np
import timm
import torch

from encoders.augment.presets import get_preset
from pretrain.methods import METHODS, DataShape
from pretrain.methods.precision import l2_normalize

SMALL = {
    "moco": {"dim": 16, "hidden": 32, "momentum": 0.9, "scale_momentum": False},
    "mae": {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2},
    "simclr": {"dim": 16, "hidden": 32},
    "byol": {"dim": 16, "hidden": 32, "momentum": 0.9, "scale_momentum": False},
    "simsiam": {"dim": 32, "bottleneck": 8},
    "barlowtwins": {"dim": 32},
    "vicreg": {"dim": 32},
    "mocov3": {"dim": 16, "hidden": 32, "momentum": 0.9, "scale_momentum": False},
    "dino": {"prototypes": 24, "hidden": 32, "bottleneck": 16, "n_local": 0, "momentum": 0.9, "scale_momentum": False, "freeze": 0.0},
    "dinov2": {"prototypes": 24, "hidden": 32, "bottleneck": 16, "n_local": 0, "momentum": 0.9, "scale_momentum": False, "freeze": 0.0},
    "lejepa": {"dim": 8, "hidden": 32, "slices": 64},
    "supcon": {"dim": 16, "hidden": 32},
    "simmim": {"mask_size": 16},
    "spark": {"decoder_width": 32},
    "ijepa": {"predictor_width": 24, "predictor_depth": 1, "predictor_heads": 2, "min_keep": 4, "momentum": 0.9, "scale_momentum": False},
}

CNN_ONLY = {name for name, kind in METHODS.items() if kind.traits.networks == "CNN"}


def rows(n, d, seed):
    """(n, d) unit rows in float64."""
    return l2_normalize(torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


def images(n, channels=1, size=32, seed=0):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(seed))


def cnn(channels=1, arch="test_resnet", **more):
    torch.manual_seed(0)
    return timm.create_model(arch, num_classes=0, in_chans=channels, **more)


def vit(channels=1, size=32, patch=8, depth=2, **more):
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, in_chans=channels, img_size=size, patch_size=patch, depth=depth, embed_dim=48, **more
    )


def backbone_for(name, channels=1):
    """A CNN, or a ViT for a method that needs one. A method that masks a CNN gets 4 x 4 patches of 8 pixels."""
    if name in CNN_ONLY:
        return cnn(channels, output_stride=8)
    return vit(channels) if METHODS[name].plain_vit_only else cnn(channels)


def method(name, backbone=None, n_images=512, batch=16, size=32, channels=1, pretrained=False, seed=1, **cfg):
    backbone = backbone if backbone is not None else backbone_for(name, channels)
    torch.manual_seed(seed)
    kind = METHODS[name]
    return kind(kind.Config(**cfg), backbone, DataShape(n_images, size, channels, batch, pretrained)).train()


def small_method(name, backbone=None, n_images=64, channels=1, seed=1, **cfg):
    """A method with the settings of SMALL, changed by `cfg`."""
    return method(name, backbone, n_images=n_images, channels=channels, seed=seed, **(SMALL[name] | cfg))


def batch(m, i=0, n=16):
    """Batch number i of noise: one batch of images per view of the method, and masks if it needs them."""
    specs, spec = m.views(get_preset("cxr")), m.mask_spec()
    views = [images(n, m.data.channels, s.size or m.data.size, seed=len(specs) * i + v) for v, s in enumerate(specs)]
    if spec is None:
        return views, None
    return views, [spec.draw(0, np.arange(n) + n * i, v) for v in range(len(specs))]


def step(m, views, masks=None, progress=0.0, lr=0.05, patient_ids=None):
    """One plain SGD step as the loop takes it; returns the loss."""
    out = m(views, masks, progress, patient_ids)
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
