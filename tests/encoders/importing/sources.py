"""Networks with changed weights, and files as their sources write them."""

import torch

VIT = {"depth": 2, "img_size": 64, "num_classes": 0}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def randomised(model):
    """`model` with every parameter and running statistic changed, so that no two tensors are equal."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.02)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.add_(0.3)  # features that are no zeros after a ReLU
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.add_(torch.rand_like(buffer) * (0.1 if "mean" in name else 1))
    return model.eval()


def prefixed(prefix, model, factor=1):
    return {f"{prefix}{key}": value * factor for key, value in model.state_dict().items()}


def save(tmp_path, content, name="w.pth"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


def relative_difference(want, got):
    assert want.shape == got.shape
    assert want.std() > 0
    return float((want - got).abs().max() / want.abs().max())
