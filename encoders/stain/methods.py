"""Stain normalisation of H&E: Macenko's stain vectors, Reinhard's colour statistics.

Sources: Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009, with the reference matrix and
largest concentrations of the authors' code (mitkovetta/staining-normalization; schaugf/HEnorm_python). Reinhard et al., "Color transfer
between images", IEEE CG&A 2001, in the l-alpha-beta space of Ruderman et al. 1998, with HistomicsTK's reference statistics.

Departures from the sources:
- White is 1 (the authors' code uses 240 of 255 and adds 1), so that white stays white.
- Tissue is where the mean density of the channels, not that of every channel, is at least 0.15: some stains and scanners leave blue nearly
  transparent, and nine tenths of an LC25000 tile were lost, the palest pixels first.
- Reinhard measures tissue only, as HistomicsTK does with a mask, and is blended towards glass, so that no edges appear.

Shapes: P pixels of one or more tiles of one slide, (..., 3) values in [0, 1].
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import FloatArray

# Columns: optical densities (natural logarithm) of haematoxylin and eosin in red, green, blue. Below: their largest concentrations.
HE_REFERENCE = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
MAX_CONCENTRATIONS_REFERENCE = np.array([1.9705, 1.0308])
GLASS_MAX_DENSITY = 0.15  # mean density of the channels below which a pixel is glass (beta)
ANGLE_TAIL_PERCENT = 1.0  # per cent of the angles that count as outliers at each end (alpha)
MIN_TISSUE_PIXELS = 50  # fewer tissue pixels do not give a usable covariance
MIN_STAIN_VARIANCE = 1e-6  # variance of densities along the second axis; below it there is only one stain
MIN_PIXEL_VALUE = 1 / 255  # smaller values are raised to it, because log(0) is -inf

# RGB to cone responses (Reinhard et al. 2001, eq. 4), and their logarithms to l, alpha, beta (eq. 6).
RGB_TO_LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
LMS_TO_LAB = np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])
LAB_MEAN = np.array([8.63234435, -0.11501964, 0.03868433])  # on 0..255, HistomicsTK's reference_mu_lab
LAB_STD = np.array([0.57506023, 0.10403329, 0.01364062])


class Stains(NamedTuple):
    """vectors: (3, 2) unit columns, haematoxylin and eosin.  max_concentrations: (2,) 99th percentile of their concentrations."""

    vectors: FloatArray
    max_concentrations: FloatArray


REFERENCE_STAINS = Stains(HE_REFERENCE, MAX_CONCENTRATIONS_REFERENCE)


def optical_density(values: NDArray[np.floating]) -> FloatArray:
    """Optical density (natural logarithm), of the shape of `values`: 0 for white."""
    return -np.log(np.clip(np.asarray(values, np.float64), MIN_PIXEL_VALUE, 1.0))


def estimate_stains(values: NDArray[np.floating]) -> Stains | None:
    """The stains of the pixels (..., 3); None if they have too little tissue or only one colour."""
    densities = optical_density(values).reshape(-1, 3)  # (P, 3)
    absorbing = densities[densities.mean(axis=1) >= GLASS_MAX_DENSITY]
    if len(absorbing) < MIN_TISSUE_PIXELS:
        return None
    variances, axes = np.linalg.eigh(np.cov(absorbing.T))
    if variances[1] < MIN_STAIN_VARIANCE:
        return None
    plane = axes[:, [2, 1]]
    plane = plane * np.where(plane.sum(axis=0) < 0, -1.0, 1.0)  # the sign of an eigenvector is arbitrary
    across, up = (absorbing @ plane).T
    ends = np.percentile(np.arctan2(up, across), [ANGLE_TAIL_PERCENT, 100 - ANGLE_TAIL_PERCENT])
    pair = plane @ np.stack([np.cos(ends), np.sin(ends)])  # (3, 2)
    vectors = pair[:, np.argsort(-pair[0])]  # haematoxylin absorbs more red
    largest = np.percentile(stain_concentrations(densities, vectors), 99, axis=0)
    return Stains(vectors, largest) if (largest > 0).all() else None


def stain_concentrations(densities: FloatArray, vectors: FloatArray) -> FloatArray:
    """(P, 2) concentrations of the two stains, by least squares.  densities: (P, 3).  vectors: (3, 2)."""
    return np.asarray(np.linalg.lstsq(vectors, densities.T, rcond=None)[0].T, np.float64)


def density_mapping(source: Stains, target: Stains, keep_rest: bool = False) -> FloatArray:
    """(3, 3) matrix A so that `density @ A` has the stains of the target.

    keep_rest: keep the part of the density that neither stain explains; False: drop it."""
    inverse = np.linalg.pinv(source.vectors)  # (2, 3)
    forward = target.vectors @ np.diag(target.max_concentrations / source.max_concentrations) @ inverse
    rest = np.eye(3) - source.vectors @ inverse if keep_rest else 0.0
    return np.asarray((forward + rest).T)


def interpolate_stains(start: Stains, end: Stains, share: float) -> Stains:
    """Stains between `start` (share 0) and `end` (share 1).  Source: Chang et al. 2021, "Stain Mix-Up", arXiv:2109.01483, eq. 3."""
    vectors = (1 - share) * start.vectors + share * end.vectors
    largest = (1 - share) * start.max_concentrations + share * end.max_concentrations
    return Stains(vectors / np.linalg.norm(vectors, axis=0), largest)


def macenko(values: NDArray[np.floating], source: Stains, target: Stains = REFERENCE_STAINS) -> FloatArray:
    """The pixels (..., 3) with the target's stains and largest concentrations."""
    return np.asarray(np.exp(-optical_density(values) @ density_mapping(source, target)).clip(0, 1))


def rgb_to_lab(values: NDArray[np.floating]) -> FloatArray:
    """(..., 3) l, alpha, beta of values in [0, 1]; natural logarithms of cone responses on 0..255."""
    return np.asarray(np.log(np.maximum(np.asarray(values, np.float64), MIN_PIXEL_VALUE) * 255 @ RGB_TO_LMS.T) @ LMS_TO_LAB.T)


def lab_to_rgb(values: FloatArray) -> FloatArray:
    """The inverse of `rgb_to_lab`, not clipped to [0, 1]."""
    return np.asarray(np.exp(values @ np.linalg.inv(LMS_TO_LAB).T) @ np.linalg.inv(RGB_TO_LMS).T / 255)


def tissue_weight(values: NDArray[np.floating]) -> FloatArray:
    """(...,) tissue fraction of a pixel: 0 up to half of GLASS_MAX_DENSITY, 1 from GLASS_MAX_DENSITY, linear between them."""
    return np.asarray((optical_density(values).mean(axis=-1) / GLASS_MAX_DENSITY * 2 - 1).clip(0, 1))


def lab_statistics(values: NDArray[np.floating]) -> tuple[FloatArray, FloatArray] | None:
    """Mean and standard deviation, (3,) each, of l, alpha, beta over tissue; None for too little tissue or only one colour."""
    tissue = rgb_to_lab(np.asarray(values)[tissue_weight(values) == 1])  # (P, 3)
    if len(tissue) < MIN_TISSUE_PIXELS or (tissue.std(axis=0) < MIN_STAIN_VARIANCE).any():
        return None
    return tissue.mean(axis=0), tissue.std(axis=0)


def reinhard(
    values: NDArray[np.floating], source: tuple[FloatArray, FloatArray], target: tuple[FloatArray, FloatArray] = (LAB_MEAN, LAB_STD)
) -> FloatArray:
    """The pixels (..., 3): tissue with the target's mean and standard deviation of l, alpha, beta, glass unchanged, blended between."""
    moved = lab_to_rgb((rgb_to_lab(values) - source[0]) / source[1] * target[1] + target[0]).clip(0, 1)
    share = tissue_weight(values)[..., None]
    return np.asarray(share * moved + (1 - share) * np.asarray(values, np.float64))
