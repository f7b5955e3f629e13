"""Random fields and soft shapes from which the phantoms are built.

Shapes: S side of the image.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import expit, ndtri

Field = NDArray[np.float64]  # (S, S)


def smooth_noise(rng: np.random.Generator, size: int, sigma: float) -> Field:
    """(S, S): Gaussian noise with a correlation length of `sigma` pixels, mean 0, standard deviation 1."""
    field: Field = gaussian_filter(rng.standard_normal((size, size)), sigma, mode="wrap")
    return np.asarray((field - field.mean()) / field.std())


def gaussianise(field: Field) -> Field:
    """The field with its values replaced by the normal quantiles of their ranks: the same order, and always the same histogram."""
    order = np.argsort(field, axis=None, kind="stable")
    out = np.empty(field.size)
    out[order] = ndtri((np.arange(field.size) + 0.5) / field.size)
    return out.reshape(field.shape)


def shuffle_phases(rng: np.random.Generator, field: Field) -> Field:
    """A field with the same power spectrum and random phases."""
    other = np.fft.rfft2(rng.standard_normal(field.shape))
    return np.fft.irfft2(np.abs(np.fft.rfft2(field)) * other / np.maximum(np.abs(other), 1e-12), s=field.shape)


def soft_step(distance: Field, soft: float) -> Field:
    """1 where `distance` is well below 0, 0 where it is well above 0, with a soft edge of width `soft` between."""
    return np.asarray(expit(-distance / soft))


def soft_ellipse(x: Field, y: Field, cx: float, cy: float, rx: float, ry: float, soft: float = 0.02, power: float = 2.0) -> Field:
    """A filled ellipse (power 2) or a box with rounded corners (power above 2), with a soft edge. Lengths are in the units of x and y."""
    radius = (np.abs((x - cx) / rx) ** power + np.abs((y - cy) / ry) ** power) ** (1 / power)
    return soft_step((radius - 1) * min(rx, ry), soft)


def soft_band(offset: Field, width: float) -> Field:
    """A Gaussian ridge where `offset` is 0, with standard deviation `width`."""
    return np.exp(-0.5 * (offset / width) ** 2)


def coordinate_grid(size: int, turn: float = 0.0, zoom: float = 1.0, dx: float = 0.0, dy: float = 0.0) -> tuple[Field, Field]:
    """(S, S) each: coordinates x (to the right) and y (down), -1 to 1 across the image, rotated by `turn` radians, zoomed and shifted."""
    line = (np.arange(size) + 0.5) * 2 / size - 1
    u, v = np.meshgrid(line - dx, line - dy)
    return (np.cos(turn) * u - np.sin(turn) * v) / zoom, (np.sin(turn) * u + np.cos(turn) * v) / zoom
