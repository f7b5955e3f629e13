"""What is done to the values of a view once it is cut out: colour, display, blur, noise. In place, a factor for each image.

Each function takes images (B, C, H, W) in [0, 1] and an array with first axis B, and gives them back in [0, 1]. Colour is torchvision's
`adjust_*`; hue is turned in HSV by its closed form, without going there and back.

Shapes: B images, C channels, H, W pixels.
"""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.runtime.arrays import Array
from encoders.runtime.random import Purpose, generator

AUGMENT_LUMA = 0.299, 0.587, 0.114  # ITU-R 601, as torchvision and Pillow
# Optical densities of haematoxylin, eosin and DAB (rows) in red, green, blue. Source: Ruifrok and Johnston 2001, as scikit-image.
RGB_FROM_HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
NOISE_FIELD_SIDE = 1024  # pixels a side of the field of noise


def broadcast_per_image(values: Array, like: Tensor) -> Tensor:
    """(B,) numbers as a (B, 1, 1, 1) tensor beside `like`."""
    return torch.as_tensor(np.asarray(values, dtype=np.float32)).to(like.device, non_blocking=True).view(-1, 1, 1, 1)


def luma(images: Tensor) -> Tensor:
    """The gray level (B, 1, H, W)."""
    if images.shape[1] == 1:
        return images
    red, green, blue = (images[:, c : c + 1] for c in range(3))
    return (red * AUGMENT_LUMA[0]).add_(green, alpha=AUGMENT_LUMA[1]).add_(blue, alpha=AUGMENT_LUMA[2])


def brightness(images: Tensor, factor: Array) -> Tensor:
    return images.mul_(broadcast_per_image(factor, images)).clamp_max_(1.0)


def contrast(images: Tensor, factor: Array) -> Tensor:
    """Away from the mean gray level of each image, or towards it."""
    f = broadcast_per_image(factor, images)
    middle = torch.stack([row.mean() for row in luma(images)]).view(-1, 1, 1, 1)  # one by one: no sum over another row's pixels
    return images.mul_(f).add_(middle.mul_(1 - f)).clamp_(0, 1)


def saturation(images: Tensor, factor: Array) -> Tensor:
    """Away from gray, or towards it; one channel stays as it is."""
    if images.shape[1] == 1:
        return images
    f = broadcast_per_image(factor, images)
    gray = luma(images).mul_(1 - f)
    return images.mul_(f).add_(gray).clamp_(0, 1)


def hue(images: Tensor, turns: Array) -> Tensor:
    """Hue turned by a share of the circle, at the same value and saturation; one channel stays as it is.

    A channel is  low + range * clip(|h mod 6 - 3| - 1, 0, 1),  h the hue in sixths, counted from the channel's own primary."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)  # (B, H, W) each
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    span = high.sub(low)
    is_red = torch.eq(red, high).to(images.dtype)
    is_green = torch.eq(green, high).to(images.dtype).mul_(1 - is_red)
    is_blue = (1 - is_red).sub_(is_green)
    h = is_red.mul_(green - blue)
    h.add_(is_green.mul_((blue - red).add_(span, alpha=2)))
    h.add_(is_blue.mul_((red - green).add_(span, alpha=4)))
    h.div_(span.clamp_min(1e-12)).mul_(1 / 6).add_(broadcast_per_image(turns + 2.0, images)[:, 0])  # in turns; + 2 so that it is positive
    for channel, primary in zip((red, green, blue), (0.0, 1 / 3, 2 / 3), strict=True):
        share = h.sub(primary).frac_().mul_(6).sub_(3).abs_().sub_(1).clamp_(0, 1)
        channel.copy_(share.mul_(span).add_(low))
    return images


def grayscale(images: Tensor) -> Tensor:
    """Every channel becomes the gray level."""
    return images if images.shape[1] == 1 else images.copy_(luma(images).expand_as(images))


def window(images: Tensor, ends: Array) -> Tensor:
    """ends (B, 2): what becomes black, what becomes white."""
    low, high = broadcast_per_image(ends[:, 0], images), broadcast_per_image(ends[:, 1], images)
    return images.sub_(low).div_(high - low).clamp_(0, 1)


def gamma(images: Tensor, exponent: Array) -> Tensor:
    return images.pow_(broadcast_per_image(exponent, images))


def stain(images: Tensor, factor: Array, shift: Array) -> Tensor:
    """Stain densities times `factor` plus `shift`, (B, 3) each; on three channels only.

    Densities are linear in -log(value), so this is one affine map there.  Source: Tellez et al. 2018, arXiv:1801.09975, sec. III-D."""
    if images.shape[1] == 1:
        return images
    there, back = np.linalg.inv(RGB_FROM_HED), RGB_FROM_HED
    mix = np.einsum("ij,bj,jk->bik", there, factor, back)  # row vectors: density_rgb @ there = density_hed
    return map_density(images, mix, shift @ back)


def map_density(images: Tensor, mix: Array, move: Array | None = None) -> Tensor:
    """Optical densities of three channels through an affine map: times `mix` (B, 3, 3) plus `move` (B, 3)."""
    mix = mix.astype(np.float32)
    move = np.zeros((len(mix), 3), np.float32) if move is None else move.astype(np.float32)
    density = images.clamp_min_(1e-6).log_().neg_()  # 1e-6: far below one of 65,535 steps
    out = torch.empty_like(density)
    for b in range(len(images)):
        for c in range(3):
            plane = torch.mul(density[b, 0], float(mix[b, 0, c]), out=out[b, c])
            plane.add_(density[b, 1], alpha=float(mix[b, 1, c])).add_(density[b, 2], alpha=float(mix[b, 2, c])).add_(float(move[b, c]))
    return images.copy_(out.neg_().exp_().clamp_(0, 1))


def blur(images: Tensor, sigma: Array) -> Tensor:
    """A Gaussian of `sigma` pixels, cut at three of them, the picture mirrored at its border. A tap at a time, rows then columns."""
    reach = int(min(np.ceil(3 * sigma.max()), min(images.shape[2:]) - 1))
    if reach < 1:
        return images
    taps = np.exp(-0.5 * (np.arange(reach + 1) / sigma[:, None]) ** 2) * (np.arange(reach + 1) <= np.ceil(3 * sigma)[:, None])
    taps /= taps[:, :1] + 2 * taps[:, 1:].sum(1, keepdims=True)  # (B, 1 + reach)
    for axis in (2, 3):
        pad = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
        padded, length = F.pad(images, pad, mode="reflect"), images.shape[axis]
        torch.mul(padded.narrow(axis, reach, length), broadcast_per_image(taps[:, 0], images), out=images)
        for t in range(1, reach + 1):
            for side in (reach - t, reach + t):
                _add_weighted(images, padded.narrow(axis, side, length), taps[:, t])
    return images


def _add_weighted(images: Tensor, other: Tensor, weight: Array) -> None:
    if len(weight) == 1:
        images.add_(other, alpha=float(weight[0]))
    else:
        images.addcmul_(other, broadcast_per_image(weight, images))


def solarise(images: Tensor, threshold: Array) -> Tensor:
    """Values at or above the threshold are inverted: v + above * (1 - 2 v)."""
    above = (images >= broadcast_per_image(threshold, images)).to(images.dtype)
    return images.add_(above.mul_(torch.sub(1, images, alpha=2)))


def noise(images: Tensor, std: Array, at: Array) -> Tensor:
    """Gaussian noise: windows, at random places `at` (B, 3, 2), of a fixed field of a million normal numbers, one for each channel.

    A field costs a tenth of fresh numbers, and is the same on every device."""
    for b in np.flatnonzero(std):
        for c in range(images.shape[1]):
            images[b, c].add_(noise_window(images[b, c], at[b, c]), alpha=float(std[b]))
    return images.clamp_(0, 1)


def noise_window(like: Tensor, at: Array) -> Tensor:
    """A window of the field of noise as large as `like` (H, W)."""
    h, w = like.shape
    field = _noise_field(max(NOISE_FIELD_SIDE, h, w), like.device)
    top, left = int(at[0] * (field.shape[0] - h + 1)), int(at[1] * (field.shape[1] - w + 1))
    return field[top : top + h, left : left + w]


@cache
def _noise_field(side: int, device: torch.device) -> Tensor:
    numbers = generator(0, Purpose.NOISE, side).standard_normal((side, side), dtype=np.float32)
    return torch.from_numpy(numbers).to(device)


def cutout(images: Tensor, hole: Array) -> Tensor:
    """hole (B, 4): top, left, height, width as shares of the view; filled with each channel's mean."""
    h, w = images.shape[2:]
    for b in np.flatnonzero(hole[:, 2] * hole[:, 3]):
        top, left = round(hole[b, 0] * h), round(hole[b, 1] * w)
        high, wide = round(hole[b, 2] * h), round(hole[b, 3] * w)
        for plane in images[b]:
            plane[top : top + high, left : left + wide] = plane.mean()
    return images
