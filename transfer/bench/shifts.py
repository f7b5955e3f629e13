"""Acquisition shifts of growing strength, laid over images in [0, 1] at the store's own size, before any encoder's preprocessing.

What another scanner, exposure, detector or staining would change while the diagnosis stays. Strengths 1 to 5 are the numbers in SHIFTS;
those of blur and noise are for a side of 224 pixels and scale with the image, so that a store of 512 pixels is not shifted less. What is
drawn (the direction of a turn, the place in the noise, the stain) depends on the image's row alone and is the same at every strength.

Shapes: B images, C channels, H, W pixels.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from encoders.augment.blur import gaussian_blur
from encoders.augment.gamma import adjust_gamma
from encoders.augment.noise import add_noise
from encoders.augment.stain_jitter import jitter_stain_densities
from encoders.runtime.arrays import FloatArray
from encoders.runtime.config import json_digest
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.random import Purpose, uniform
from encoders.store.store import Store
from encoders.zoo.preprocess import resize_antialiased

VERSION = 2  # raise it when the same shift and strength would give other pixels
REFERENCE_SIDE = 224  # pixels: the side that lengths are given for


@dataclass(frozen=True)
class Shift:
    """apply(images (B, C, H, W), value, u (B, 6) uniform numbers, modality); values: one a strength."""

    unit: str
    values: tuple[float, ...]
    apply: Callable[[Tensor, float, FloatArray, str], Tensor]


def gamma(images: Tensor, exponent: float, u: FloatArray, modality: str) -> Tensor:
    """Middle grays darker, as a display or a look-up table of another maker shows them."""
    return adjust_gamma(images, np.full(len(images), exponent))


def noise(images: Tensor, std: float, u: FloatArray, modality: str) -> Tensor:
    """Gaussian noise, as of a lower dose. std: at a side of 224 pixels; shrinking averages it away in proportion to the side."""
    return add_noise(images, np.full(len(images), std * max(images.shape[2:]) / REFERENCE_SIDE), u.reshape(-1, 3, 2))


def blur(images: Tensor, sigma: float, u: FloatArray, modality: str) -> Tensor:
    """Gaussian blur, as of motion, a coarser detector or a slide out of focus. sigma: pixels at a side of 224."""
    return gaussian_blur(images, np.full(len(images), sigma * max(images.shape[2:]) / REFERENCE_SIDE))


def jpeg(images: Tensor, quality: float, u: FloatArray, modality: str) -> Tensor:
    """JPEG as Pillow writes it (8 bits, colour at half the resolution)."""
    pixels = np.rint(images.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)  # (B, H, W, C)
    for i, picture in enumerate(pixels):
        file = io.BytesIO()
        Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(file, "JPEG", quality=round(quality))
        pixels[i] = np.asarray(Image.open(file)).reshape(picture.shape)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def rotate(images: Tensor, degrees: float, u: FloatArray, modality: str) -> Tensor:
    """Turned about the centre, to a side that is drawn. Beyond the edge a tile is mirrored, any other image black."""
    h, w = images.shape[2:]
    angle = np.deg2rad(degrees) * np.where(u[:, 0] < 0.5, -1, 1)
    c, s = np.cos(angle), np.sin(angle)
    # (B, 2, 3) output to input, in coordinates that reach from -1 to 1 along each side.
    theta = torch.from_numpy(np.stack([np.stack([c, -s * h / w, 0 * c], 1), np.stack([s * w / h, c, 0 * c], 1)], 1)).float()
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection" if modality == "histology" else "zeros", align_corners=False)


def crop(images: Tensor, kept: float, u: FloatArray, modality: str) -> Tensor:
    """The middle of the image, enlarged to its size: tighter collimation, or another magnification. kept: share of each side."""
    h, w = images.shape[2:]
    high, wide = max(1, round(kept * h)), max(1, round(kept * w))
    top, left = (h - high) // 2, (w - wide) // 2
    return resize_antialiased(images[:, :, top : top + high, left : left + wide], h, w, "bilinear")


def stain(images: Tensor, sigma: float, u: FloatArray, modality: str) -> Tensor:
    """Haematoxylin, eosin and DAB densities times 1 + sigma x and plus sigma y, x and y drawn from [-1, 1] for each image (HED jitter)."""
    drawn = sigma * (2 * u - 1)
    return jitter_stain_densities(images, 1 + drawn[:, :3], drawn[:, 3:])


# Append only: what is drawn depends on a shift's place here.
SHIFTS: dict[str, Shift] = {
    "gamma": Shift("exponent", (1.25, 1.5, 2.0, 2.5, 3.0), gamma),
    "noise": Shift("standard deviation at 224", (0.02, 0.04, 0.07, 0.1, 0.15), noise),
    "blur": Shift("sigma, px at 224", (0.5, 1.0, 1.5, 2.5, 4.0), blur),
    "jpeg": Shift("quality", (60, 40, 20, 10, 5), jpeg),
    "rotate": Shift("degrees", (3, 6, 10, 15, 20), rotate),
    "crop": Shift("share of the side kept", (0.95, 0.9, 0.8, 0.7, 0.6), crop),
    "stain": Shift("sigma of the HED jitter", (0.05, 0.1, 0.15, 0.2, 0.3), stain),
}


def apply_shift(images: NDArray[np.float32], rows: NDArray[Any], name: str, strength: int, modality: str) -> NDArray[np.float32]:
    """(B, H, W, C) in [0, 1] under a shift. rows: (B,) the images' places in their store, which their random numbers depend on."""
    kind = SHIFTS[name]
    u = uniform(0, Purpose.ACQUISITION, rows, list(SHIFTS).index(name), 6)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return kind.apply(x, kind.values[strength - 1], u, modality).clamp(0, 1).permute(0, 2, 3, 1).contiguous().numpy()


class ShiftedStore(Store):
    """A store whose images in [0, 1] come under a shift. Its fingerprint is another, so that its features are cached apart."""

    def __init__(self, store: Store, name: str, strength: int):
        super().__init__(store.parts)
        self.shift, self.strength = name, strength

    @property
    def fingerprint(self) -> str:
        value = SHIFTS[self.shift].values[self.strength - 1]
        return json_digest([super().fingerprint, "shifted", VERSION, self.shift, value], 64)

    def unit_images(self, index: ArrayLike) -> NDArray[np.float32]:
        rows = np.asarray(index).reshape(-1)
        return apply_shift(super().unit_images(rows), rows, self.shift, self.strength, self.modality)


def expand_shifts(names: Sequence[str], strengths: Sequence[int]) -> list[tuple[str, int]]:
    """Every shift at every strength, weakest first. Raises InputError for one that is not known."""
    for name in names:
        if name not in SHIFTS:
            raise unknown_name_error("acquisition shift", name, SHIFTS)
    wrong = [s for s in strengths if not 1 <= s <= 5]
    if wrong or (names and not strengths):
        raise InputError(f"--strengths holds {wrong or 'nothing'}; strengths are whole numbers from 1 (slight) to 5")
    return [(name, s) for name in dict.fromkeys(names) for s in sorted(set(strengths))]


def check_shifts(shifts: Sequence[tuple[str, int]], store: Store) -> None:
    """Raises InputError for a shift that the images of a store cannot have."""
    if any(name == "stain" for name, _ in shifts) and store.channels != 3:
        raise InputError(f"the stain of gray images cannot be shifted ({store.paths[0]} has {store.channels} channel); leave `stain` out")
