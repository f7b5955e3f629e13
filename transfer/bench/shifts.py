"""Acquisition shifts of increasing strength, applied to images in [0, 1] at the size of the store, before the preprocessing of an encoder.

They change what another scanner, exposure, detector or staining would change, and keep the diagnosis. SHIFTS holds the values at strengths
1 to 5; strength 0 is the identity. Values of blur and noise refer to a side of 224 pixels and scale with the image, so that a store of 512
pixels is not shifted less. Random numbers (the direction of a rotation, the noise, the stain) depend on the row of the image alone and are
the same at every strength.

Shapes: B images, C channels, H, W pixels.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.config import json_digest
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.random import Purpose, uniform
from encoders.store.store import Store
from encoders.zoo.preprocess import resize_antialiased

VERSION = 2  # raise it when the same shift and strength would give other pixels
REFERENCE_SIDE = 224  # pixels: side of the image to which lengths refer


@dataclass(frozen=True)
class Shift:
    """An acquisition shift.

    title: one line.  unit: of `values`, one per strength from 1 on.
    apply: (images (B, C, H, W), value, u (B, 6) uniform random numbers, modality) -> images."""

    title: str
    unit: str
    values: tuple[float, ...]
    apply: Callable[[Tensor, float, FloatArray, str], Tensor]


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


# Append only: the random numbers of a shift depend on its position in this dict.
SHIFTS: dict[str, Shift] = {
    "gamma": Shift("gamma: darker middle grays", "exponent", (1.25, 1.5, 2.0, 2.5, 3.0), gamma),
    "noise": Shift("Gaussian noise", "standard deviation at 224", (0.02, 0.04, 0.07, 0.1, 0.15), noise),
    "blur": Shift("Gaussian blur", "sigma, px at 224", (0.5, 1.0, 1.5, 2.5, 4.0), blur),
    "jpeg": Shift("JPEG compression", "quality", (60, 40, 20, 10, 5), jpeg),
    "rotate": Shift("rotation about the centre", "degrees", (3, 6, 10, 15, 20), rotate),
    "crop": Shift("central crop, enlarged", "share of the side kept", (0.95, 0.9, 0.8, 0.7, 0.6), crop),
    "stain": Shift("stain jitter", "sigma of the HED jitter", (0.05, 0.1, 0.15, 0.2, 0.3), stain),
}


def apply_shift(images: NDArray[np.float32], rows: Array, name: str, strength: int, modality: str) -> NDArray[np.float32]:
    """(B, H, W, C) in [0, 1] under a shift. rows: (B,) rows of the images in their store, from which their random numbers are drawn.

    strength: 0 (unchanged) to 5."""
    if strength == 0:
        return images
    kind = SHIFTS[name]
    u = uniform(0, Purpose.ACQUISITION, rows, list(SHIFTS).index(name), 6)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return kind.apply(x, kind.values[strength - 1], u, modality).clamp(0, 1).permute(0, 2, 3, 1).contiguous().numpy()


class ShiftedStore(Store):
    """A store whose images in [0, 1] are under a shift. It has a fingerprint of its own, so that its features are cached separately."""

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
    """Every shift at every strength, weakest first. Raises InputError for an unknown shift or strength."""
    for name in names:
        if name not in SHIFTS:
            raise unknown_name_error("acquisition shift", name, SHIFTS)
    unknown = [s for s in strengths if not 1 <= s <= 5]
    if unknown or (names and not strengths):
        raise InputError(f"--strengths holds {unknown or 'nothing'}; strengths are integers from 1 (slight) to 5 (strong)")
    return [(name, s) for name in dict.fromkeys(names) for s in sorted(set(strengths))]


def check_shifts(shifts: Sequence[tuple[str, int]], store: Store) -> None:
    """Raises InputError for a shift that cannot be applied to the images of a store."""
    if any(name == "stain" for name, _ in shifts) and store.channels != 3:
        raise InputError(
            f"the shift `stain` needs RGB images, and {store.paths[0]} has {store.channels} channel; remove `stain` from --shift"
        )
