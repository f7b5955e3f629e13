"""How voxel values become gray values of 16 bits: a window for CT, percentiles of the volume for MR.

Shapes: X, Y, Z, C of the voxels; H, W of a slice.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.dicom.pixels import VoiWindow
from encoders.ingest.source import PixelUnit, Unreadable
from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError

GRAY_MAX = 65535
DEFAULT_PERCENTILES = (0.5, 99.5)  # nnU-Net's clipping (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z), here of every volume


@dataclass(frozen=True)
class VoxelScaling:
    """The values that become black and white: those of a window, or percentiles of the voxels of each volume and channel.

    The lowest value of a volume counts as background (skull-stripped MR and resampled volumes are padded with it), so percentiles are
    those of the voxels above it."""

    window: VoiWindow | None = None
    percentiles: tuple[float, float] = DEFAULT_PERCENTILES

    def limits(self, voxels: Array) -> NDArray[np.float64]:
        """(2, C) the values that become 0 and 1. Raises Unreadable if a channel has a single value.

        voxels: (X, Y, Z, C); values that are not finite are left out."""
        if self.window is not None:
            half = self.window.width / 2
            return np.repeat([[self.window.center - half], [self.window.center + half]], voxels.shape[-1], axis=1)
        limits = np.empty((2, voxels.shape[-1]))
        for c in range(voxels.shape[-1]):
            values = voxels[..., c][np.isfinite(voxels[..., c])]
            above = values[values > values.min()] if values.size else values
            if not above.size:
                raise Unreadable("is a constant volume" + (f": every voxel is {values.flat[0]:g}" if values.size else " without a number"))
            limits[:, c] = np.percentile(above, self.percentiles)
            if limits[0, c] >= limits[1, c]:  # two values only, as in a mask
                limits[:, c] = values.min(), values.max()
        return limits

    @property
    def unit(self) -> PixelUnit:
        """The unit of the store."""
        return PixelUnit(scale=float(GRAY_MAX), offset=0.0, meaning=self.describe())

    def describe(self) -> str:
        """What 0 and 1 stand for."""
        if self.window is not None:
            half = self.window.width / 2
            return f"0 = {self.window.center - half:g} or less and 1 = {self.window.center + half:g} or more, in units of the volume"
        low, high = self.percentiles
        return f"0 and 1 = percentiles {low:g} and {high:g} of the volume's voxels above its minimum"


def scale_to_gray(image: Array, limits: NDArray[np.float64]) -> NDArray[np.uint16]:
    """(H, W, C) 16-bit gray values of a slice; `limits[0]` and below become 0, `limits[1]` and above 65535, NaN becomes 0."""
    low, high = limits
    values = np.clip((np.nan_to_num(image.astype(np.float64), nan=-np.inf) - low) / (high - low), 0, 1)
    return np.asarray(np.rint(values * GRAY_MAX), dtype=np.uint16)


def parse_percentiles(text: str) -> tuple[float, float]:
    """The two numbers of `LOW,HIGH`. Raises InputError unless 0 <= LOW < HIGH <= 100."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise InputError(f"--percentiles {text!r} is not LOW,HIGH; pass two numbers, e.g. --percentiles 0.5,99.5") from None
    if not 0 <= low < high <= 100:
        raise InputError(f"--percentiles {text!r}: expected 0 <= LOW < HIGH <= 100")
    return low, high
