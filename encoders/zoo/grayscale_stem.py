"""A network for gray images that answers exactly as the colour network does on gray replicated to three channels.

A stem without padding and with a bias (patch embeddings of ViT, Swin, ConvNeXt) absorbs the three means and standard deviations:
W' = sum_c W_c / s_c and b' = b - sum W_c m_c / s_c, so that W' g + b' = sum_c W_c (g - m_c) / s_c + b for gray g in [0, 1].
A stem that pads with zeros does not: its padding is the mean colour, not black, so no single-channel stem is the same function;
there gray is replicated, which costs two more channels in one layer.
"""

import copy

import torch
from einops import einsum
from torch import Tensor, nn

from encoders.zoo.card import Preprocess


def to_one_channel(model: nn.Module, preprocess: Preprocess, mean: float = 0.0, std: float = 1.0) -> tuple[nn.Module, Preprocess]:
    """The same function for gray input as (network, its preprocessing): a folded copy with one channel, or both as they are.

    mean, std: what the returned preprocessing subtracts and divides by where the stem could be folded."""
    stem = find_foldable_stem(model)
    if preprocess.channels == 1 or stem is None:
        return model, preprocess
    model = copy.deepcopy(model)
    old = model.get_submodule(stem)
    weight, bias = fold_stem(old.weight, old.bias, preprocess, mean, std)  # type: ignore[arg-type]
    new = nn.Conv2d(1, old.out_channels, old.kernel_size, old.stride, bias=True)  # type: ignore[arg-type]
    new.weight, new.bias = nn.Parameter(weight), nn.Parameter(bias)
    parent, _, leaf = stem.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new.to(weight.device))
    return model, preprocess.model_copy(update={"channels": 1, "mean": (mean,), "std": (std,)})


def fold_stem(weight: Tensor, bias: Tensor, preprocess: Preprocess, mean: float = 0.0, std: float = 1.0) -> tuple[Tensor, Tensor]:
    """Weight (O, 1, P, P) and bias (O,) for (gray - mean) / std from those (O, 3, P, P), (O,) for the card's three channels."""
    m = torch.tensor(preprocess.mean, dtype=torch.float64, device=weight.device)
    s = torch.tensor(preprocess.std, dtype=torch.float64, device=weight.device)
    wide = weight.detach().double()  # the sums cancel: double keeps the fold below float32 noise
    folded = std * einsum(wide, 1 / s, "o c p q, c -> o p q").unsqueeze(1)
    shift = bias.detach().double() + einsum(wide, (mean - m) / s, "o c p q, c -> o")
    return folded.to(weight.dtype), shift.to(bias.dtype)


def find_foldable_stem(model: nn.Module) -> str | None:
    """The name of the first convolution if it has a bias and no padding; None where gray must be replicated."""
    name = getattr(model, "default_cfg", {}).get("first_conv")
    stem = dict(model.named_modules()).get(name) if isinstance(name, str) else None
    plain = isinstance(stem, nn.Conv2d) and type(stem) is nn.Conv2d and stem.groups == 1
    if not plain or stem.bias is None or stem.padding not in ((0, 0), "valid"):  # type: ignore[union-attr]
        return None
    return name
