"""Stain normalisation as a step of ingest: measured once per slide or file, and applied to each of its tiles.

Glass is mapped to white first, as in staintools, because scanners and cameras tint it and a tint counts as stain.

Shapes: H, W of an image.
"""

from collections.abc import Callable
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import FloatArray
from encoders.runtime.errors import unknown_name_error
from encoders.stain import methods

StainStatistics = tuple[FloatArray, FloatArray]  # of one method: stain vectors and concentrations, or mean and standard deviation
STAIN_MEASURES: dict[str, Callable[[FloatArray], StainStatistics | None]] = {
    "macenko": methods.estimate_stains,
    "reinhard": methods.lab_statistics,
}
STAIN_TRANSFORMS: dict[str, Callable[[FloatArray, StainStatistics], FloatArray]] = {
    "macenko": lambda values, source: methods.macenko(values, methods.Stains(*source)),
    "reinhard": lambda values, source: methods.reinhard(values, source),
}
WHITE_PERCENTILE = 99.0  # this percentile of every channel counts as glass ...
MIN_GLASS_VALUE = 0.75  # ... unless one of its channels is darker than this: then no glass is in view, and white stays 1


class StainLook(TypedDict):
    """The measured stain of a slide or file, as its store keeps it."""

    how: str  # the method: macenko or reinhard
    white: list[float]  # (3,) values of glass
    source: list[list[float]] | list[list[list[float]]]  # the two arrays of StainStatistics


def validate_stain_method(method: str | None) -> str | None:
    """`method`, if it is the name of a stain normalisation or None. Raises InputError otherwise."""
    if method is not None and method not in STAIN_MEASURES:
        raise unknown_name_error("stain normalisation", method, list(STAIN_MEASURES))
    return method


def measure_stain(method: str, image: NDArray[np.uint8]) -> StainLook | None:
    """The stain of the tiles of a slide, or of one file, (..., 3); None if it has too little tissue or only one colour."""
    values = image.reshape(-1, 3) / 255
    white = np.percentile(values, WHITE_PERCENTILE, axis=0)
    white = white if white.min() >= MIN_GLASS_VALUE else np.ones(3)
    statistics = STAIN_MEASURES[method]((values / white).clip(0, 1))
    return None if statistics is None else {"how": method, "white": white.tolist(), "source": [part.tolist() for part in statistics]}


def normalise_stain(image: NDArray[np.uint8], look: StainLook) -> NDArray[np.uint8]:
    """The image (H, W, 3) with the stain of the reference."""
    first, second = (np.array(part) for part in look["source"])
    values = STAIN_TRANSFORMS[look["how"]]((image / 255 / np.array(look["white"])).clip(0, 1), (first, second))
    return np.asarray(np.rint(values * 255), dtype=np.uint8)
