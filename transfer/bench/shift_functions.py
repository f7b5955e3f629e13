"""What acquisition shifts do to pixels. `shifts.SHIFTS` lists them with their values.

Values of blur and noise refer to a side of 224 pixels and scale with the image, so that a store of 512 pixels is not shifted less. Random
numbers (the direction of a rotation, the noise, the stain) depend on the row of the image alone and are the same at every strength.

Shapes: B images, C channels, H, W pixels.  u: (B, 6) uniform random numbers.
"""

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from encoders.augment.blur import gaussian_blur
from encoders.augment.gamma import adjust_gamma
from encoders.augment.noise import add_noise
from encoders.augment.stain_jitter import jitter_stain_densities
from encoders.runtime.arrays import FloatArray
from encoders.zoo.preprocess import resize_antialiased

REFERENCE_SIDE = 224  # pixels: side of the image to which lengths refer


def gamma(images: Tensor, exponent: float, u: FloatArray, modality: str) -> Tensor:
    """Darker middle grays, as with another display or another look-up table."""
    return adjust_gamma(images, np.full(len(images), exponent))


def noise(images: Tensor, std: float, u: FloatArray, modality: str) -> Tensor:
    """Gaussian noise, as at a lower dose. std: at a side of 224 pixels; downscaling averages noise in proportion to the side."""
    return add_noise(images, np.full(len(images), std * max(images.shape[2:]) / REFERENCE_SIDE), u.reshape(-1, 3, 2))


def blur(images: Tensor, sigma: float, u: FloatArray, modality: str) -> Tensor:
    """Gaussian blur, as from motion, a coarser detector or a slide out of focus. sigma: pixels, at a side of 224."""
    return gaussian_blur(images, np.full(len(images), sigma * max(images.shape[2:]) / REFERENCE_SIDE))


def jpeg(images: Tensor, quality: float, u: FloatArray, modality: str) -> Tensor:
    """JPEG compression by Pillow (8 bits, colour at half the resolution)."""
    pixels = np.rint(images.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)  # (B, H, W, C)
    for i, picture in enumerate(pixels):
        file = io.BytesIO()
        Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(file, "JPEG", quality=round(quality))
        pixels[i] = np.asarray(Image.open(file)).reshape(picture.shape)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def rotate(images: Tensor, degrees: float, u: FloatArray, modality: str) -> Tensor:
    """Rotation about the centre in a random direction. Beyond the edge, tiles are reflected and other images are black."""
    h, w = images.shape[2:]
    angle = np.deg2rad(degrees) * np.where(u[:, 0] < 0.5, -1, 1)
    c, s = np.cos(angle), np.sin(angle)
    # (B, 2, 3) output to input, in coordinates that reach from -1 to 1 along each side.
    theta = torch.from_numpy(np.stack([np.stack([c, -s * h / w, 0 * c], 1), np.stack([s * w / h, c, 0 * c], 1)], 1)).float()
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection" if modality == "histology" else "zeros", align_corners=False)


def crop(images: Tensor, kept: float, u: FloatArray, modality: str) -> Tensor:
    """Central crop, resized to the size of the image: tighter collimation or another magnification. kept: share of each side."""
    h, w = images.shape[2:]
    high, wide = max(1, round(kept * h)), max(1, round(kept * w))
    top, left = (h - high) // 2, (w - wide) // 2
    return resize_antialiased(images[:, :, top : top + high, left : left + wide], h, w, "bilinear")


def stain(images: Tensor, sigma: float, u: FloatArray, modality: str) -> Tensor:
    """Haematoxylin, eosin and DAB densities times 1 + sigma x plus sigma y, with x and y uniform in [-1, 1] per image (HED jitter)."""
    drawn = sigma * (2 * u - 1)
    return jitter_stain_densities(images, 1 + drawn[:, :3], drawn[:, 3:])
