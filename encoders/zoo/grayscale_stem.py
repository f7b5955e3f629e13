"""A one-channel network with exactly the features of the colour network on gray images replicated to three channels.

A stem without padding and with a bias (patch embeddings of ViT, Swin, ConvNeXt) absorbs the three means and standard deviations:
W' = sum_c W_c / s_c and b' = b - sum W_c m_c / s_c, so that W' g + b' = sum_c W_c (g - m_c) / s_c + b for gray g in [0, 1].
A stem that pads with zeros cannot: its padding is the mean colour, not black, so no one-channel stem is the same function. For such a
stem gray is replicated, which costs two more channels in one layer.
"""

import copy

import torch
from einops import einsum
from torch import Tensor, nn

from encoders.zoo.card import Preprocess
from encoders.zoo.timm_protocols import HasDefaultCfg


def to_one_channel(model: nn.Module, preprocess: Preprocess, mean: float = 0.0, std: float = 1.0) -> tuple[nn.Module, Preprocess]:
    """(network, preprocessing) for gray input with the same features: a folded copy with one channel, or both arguments unchanged.

    mean, std: of the returned preprocessing if the stem is folded."""
    name = find_foldable_stem(model)
    if preprocess.channels == 1 or name is None:
        return model, preprocess
    model = copy.deepcopy(model)
    old = model.get_submodule(name)
    assert isinstance(old, nn.Conv2d), "find_foldable_stem returns the name of a convolution"
    assert old.bias is not None, "find_foldable_stem returns the name of a convolution with a bias"
    weight, bias = fold_stem(old.weight, old.bias, preprocess, mean, std)
    (height, width), (down, right) = old.kernel_size, old.stride
    new = nn.Conv2d(1, old.out_channels, (height, width), (down, right), bias=True)
    new.weight, new.bias = nn.Parameter(weight), nn.Parameter(bias)
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new.to(weight.device))
    return model, preprocess.model_copy(update={"channels": 1, "mean": (mean,), "std": (std,)})


def fold_stem(weight: Tensor, bias: Tensor, preprocess: Preprocess, mean: float = 0.0, std: float = 1.0) -> tuple[Tensor, Tensor]:
    """Weight (O, 1, P, P) and bias (O,) for input (gray - mean) / std.  weight: (O, 3, P, P), bias: (O,), for the three channels of
    `preprocess`."""
    m = torch.tensor(preprocess.mean, dtype=torch.float64, device=weight.device)
    s = torch.tensor(preprocess.std, dtype=torch.float64, device=weight.device)
    wide = weight.detach().double()  # the sums cancel: float64 keeps the error below that of float32
    folded = std * einsum(wide, 1 / s, "o c p q, c -> o p q").unsqueeze(1)
    shift = bias.detach().double() + einsum(wide, (mean - m) / s, "o c p q, c -> o")
    return folded.to(weight.dtype), shift.to(bias.dtype)


def find_foldable_stem(model: nn.Module) -> str | None:
    """The name of the first convolution if it has a bias and no padding; None if gray must be replicated."""
    name = model.default_cfg.get("first_conv") if isinstance(model, HasDefaultCfg) else None
    if not isinstance(name, str):
        return None
    stem = dict(model.named_modules()).get(name)
    if not isinstance(stem, nn.Conv2d) or type(stem) is not nn.Conv2d or stem.groups != 1:
        return None
    return name if stem.bias is not None and stem.padding in ((0, 0), "valid") else None
