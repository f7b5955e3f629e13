"""Jitter of the densities of haematoxylin, eosin and DAB, and affine maps of optical density."""

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from encoders.augment.device_params import DeviceParams
from encoders.augment.operation import Augmentation, DrawnParams, Draws
from encoders.runtime.arrays import Array, BoolArray
from encoders.runtime.config import Config
from encoders.runtime.device_constant import device_constant
from encoders.runtime.random import Purpose

# Optical densities of haematoxylin, eosin and DAB (rows) in red, green, blue. Source: Ruifrok and Johnston 2001, as scikit-image.
RGB_FROM_HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])


class StainJitterSettings(Config):
    stain: float = Field(0.0, ge=0, le=1, description="probability of a jitter of haematoxylin, eosin and DAB densities")
    stain_sigma: float = Field(0.05, ge=0, description="the densities are multiplied by 1 +- this and shifted by +- this, uniform")


class StainJitter(Augmentation[StainJitterSettings]):
    """stain_factor, stain_shift: (B, 3) of haematoxylin, eosin, DAB."""

    settings = StainJitterSettings
    params = ("stain_factor", "stain_shift")

    def draw(self, cfg: StainJitterSettings, draws: Draws) -> DrawnParams:
        if not cfg.stain:
            return {}
        u = draws.lanes(Purpose.STAIN, 7)
        on = (u[0] < cfg.stain) * cfg.stain_sigma
        return {"stain_factor": (1 + on * (2 * u[1:4] - 1)).T, "stain_shift": (on * (2 * u[4:7] - 1)).T}

    def changed_rows(self, params: DrawnParams) -> BoolArray:
        rows: BoolArray = (params["stain_factor"] != 1).any(1) | (params["stain_shift"] != 0).any(1)
        return rows

    def apply(self, views: Tensor, params: DrawnParams) -> None:
        jitter_stain_densities(views, params["stain_factor"], params["stain_shift"])

    def apply_on_device(self, views: Tensor, params: DeviceParams) -> Tensor:
        if views.shape[1] == 1:
            return views
        factor, shift = params.exact("stain_factor"), params.exact("stain_shift")
        there, back = device_constant(_hed_from_rgb, like=factor), device_constant(_rgb_from_hed, like=factor)
        return map_densities_together(views, (there * factor[:, None]) @ back, shift @ back)


def jitter_stain_densities(images: Tensor, factor: Array, shift: Array) -> Tensor:
    """Stain densities times `factor` plus `shift`, (B, 3) each; on three channels only.

    Densities are linear in -log(value), so this is one affine map there.  Source: Tellez et al. 2018, arXiv:1801.09975, sec. III-D."""
    if images.shape[1] == 1:
        return images
    there, back = np.linalg.inv(RGB_FROM_HED), RGB_FROM_HED
    matrix = np.einsum("ij,bj,jk->bik", there, factor, back)  # row vectors: density_rgb @ there = density_hed
    return map_density(images, matrix, shift @ back)


def map_density(images: Tensor, matrix: Array, offset: Array | None = None) -> Tensor:
    """Optical densities of three channels through an affine map: times `matrix` (B, 3, 3) plus `offset` (B, 3)."""
    matrix = matrix.astype(np.float32)
    offset = np.zeros((len(matrix), 3), np.float32) if offset is None else offset.astype(np.float32)
    density = images.clamp_min_(1e-6).log_().neg_()  # 1e-6: far below one of 65,535 steps
    out = torch.empty_like(density)
    for b in range(len(images)):
        for c in range(3):
            plane = torch.mul(density[b, 0], float(matrix[b, 0, c]), out=out[b, c])
            plane.add_(density[b, 1], alpha=float(matrix[b, 1, c])).add_(density[b, 2], alpha=float(matrix[b, 2, c]))
            plane.add_(float(offset[b, c]))
    return images.copy_(out.neg_().exp_().clamp_(0, 1))


def map_densities_together(images: Tensor, matrix: Tensor, offset: Tensor | None = None) -> Tensor:
    """As `map_density`, for all images at once.  matrix: (B, 3, 3), offset: (B, 3), on the device of the images (B, 3, H, W)."""
    minus_density, rows = images.clamp_min_(1e-6).log_().flatten(2), matrix.float().transpose(1, 2)  # (B, 3, H * W), (B, 3, 3)
    mapped = torch.bmm(rows, minus_density) if offset is None else torch.baddbmm(offset.float()[..., None], rows, minus_density, beta=-1)
    return mapped.exp_().clamp_(0, 1).view(images.shape)


def _rgb_from_hed() -> Array:
    return RGB_FROM_HED


def _hed_from_rgb() -> Array:
    return np.linalg.inv(RGB_FROM_HED)
