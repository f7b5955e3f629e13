"""From images in [0, 1] to the model's input: the only deterministic transform, which bench, canary and `encode` share.

The same torch code runs on CPU and CUDA. Images larger than the card's size are shrunk with antialiasing, smaller ones are enlarged:
64-pixel images for a card of size 224 are upsampled 3.5 times and take as long as 224-pixel images.

Shapes: B images, C channels of the images, K channels of the model, H x W pixels, S the card's size.
"""

import numpy as np
import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor

from encoders.runtime.arrays import Array
from encoders.runtime.device_constant import device_constant
from encoders.runtime.errors import InputError
from encoders.zoo.card import Preprocess

PREPROCESS_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow's convert("L")


def prepare_input(images: Tensor | Array, preprocess: Preprocess) -> Tensor:
    """(B, K, S, S) normalised float32: resized by the card's rule, channels converted, mapped to the value range, mean subtracted, divided
    by std.

    images: float in [0, 1]; an array is (B, H, W, C), a tensor (B, C, H, W) or (B, H, W, C).  Raises InputError for other shapes."""
    return normalise_input(resize_input(to_channels_first(images), preprocess), preprocess)


def normalise_input(x: Tensor, preprocess: Preprocess) -> Tensor:
    """(B, K, H, W) normalised, without resizing.  x: (B, C, H, W) in [0, 1] with C = 1 or 3."""
    x = adapt_channels(x.float(), preprocess.channels)
    if preprocess.value_range is not None:
        black, white = preprocess.value_range
        x = x * (white - black) + black
    mean, std = (device_constant(float_array, values, like=x) for values in (preprocess.mean, preprocess.std))
    return (x - rearrange(mean, "k -> k 1 1")) / rearrange(std, "k -> k 1 1")


def float_array(values: tuple[float, ...]) -> Array:
    """The values as float32."""
    return np.array(values, np.float32)


def to_channels_first(images: Tensor | Array) -> Tensor:
    """(B, C, H, W) float32. An array has channels last; a tensor has channels first unless only its last axis has length 1 or 3.

    Raises InputError for other shapes."""
    if isinstance(images, np.ndarray):
        x, last = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)), True
    else:
        x, last = images.float(), images.ndim == 4 and images.shape[1] not in (1, 3)
    if x.ndim != 4 or x.shape[-1 if last else 1] not in (1, 3):
        shape = "x".join(map(str, x.shape))
        raise InputError(f"images are {shape}, expected batch x height x width x channels with 1 or 3 channels")
    return rearrange(x, "b h w c -> b c h w") if last else x


def adapt_channels(x: Tensor, channels: int) -> Tensor:
    """(B, K, H, W): gray replicated to 3 channels, colour reduced to luma (BT.601), or x unchanged."""
    if x.shape[1] == channels:
        return x
    if x.shape[1] == 1:
        return x.expand(-1, channels, -1, -1)
    weights = device_constant(float_array, PREPROCESS_LUMA, like=x).to(x.dtype)
    return einsum(x, weights, "b c h w, c -> b h w").unsqueeze(1)


def resize_input(x: Tensor, preprocess: Preprocess) -> Tensor:
    """(B, C, S, S) in [0, 1], by the card's rule; an image of that size is returned unchanged."""
    size = preprocess.size
    if preprocess.resize == "squash":
        return resize_antialiased(x, size, size, preprocess.interpolation)
    h, w = x.shape[-2:]
    if preprocess.resize == "pad":
        longer = max(h, w)
        x = resize_antialiased(x, max(1, round(h * size / longer)), max(1, round(w * size / longer)), preprocess.interpolation)
        top, left = (size - x.shape[-2]) // 2, (size - x.shape[-1]) // 2
        return F.pad(x, (left, size - x.shape[-1] - left, top, size - x.shape[-2] - top))  # 0 is black in [0, 1]
    shorter, target = min(h, w), int(size / preprocess.crop_pct)
    x = resize_antialiased(x, round(h * target / shorter), round(w * target / shorter), preprocess.interpolation)
    top, left = (x.shape[-2] - size) // 2, (x.shape[-1] - size) // 2
    return x[..., top : top + size, left : left + size]


def resize_antialiased(x: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    """(B, C, height, width), antialiased; bicubic overshoot is clipped to [0, 1] as in 8-bit image libraries."""
    if x.shape[-2:] == (height, width):
        return x
    return F.interpolate(x, (height, width), mode=interpolation, antialias=True, align_corners=False).clamp(0.0, 1.0)
