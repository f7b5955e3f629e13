"""Stain normalisation as a step of ingest: measured once a slide, or once a file, and then the same for each of its tiles.

Glass is made white first, as staintools does it, because scanners and cameras tint it and a tint counts as stain.

Shapes: H, W of an image.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.errors import unknown_name_error
from encoders.stain import methods

STAIN_MEASURES: dict[str, Any] = {"macenko": methods.estimate_stains, "reinhard": methods.lab_statistics}
STAIN_TRANSFORMS: dict[str, Any] = {
    "macenko": lambda values, source: methods.macenko(values, methods.Stains(*source)),
    "reinhard": lambda values, source: methods.reinhard(values, tuple(source)),
}
WHITE_PERCENTILE = 99.0  # percentile of every channel that is taken for glass
MIN_GLASS_VALUE = 0.75  # ... where no channel of it is darker than this: else there is no glass in view, and white stays 1
StainLook = dict[str, Any]  # how, white (3,), source: what was measured, as JSON holds it


def validate_stain_method(how: str | None) -> str | None:
    """The name of a normalisation, or None. Raises InputError for another one."""
    if how is not None and how not in STAIN_MEASURES:
        raise unknown_name_error("stain normalisation", how, list(STAIN_MEASURES))
    return how


def measure_stain(how: str, image: NDArray[np.uint8]) -> StainLook | None:
    """What a slide's tiles, or one file, (..., 3) look like; None where there is too little tissue, or but one colour."""
    values = image.reshape(-1, 3) / 255
    white = np.percentile(values, WHITE_PERCENTILE, axis=0)
    white = white if white.min() >= MIN_GLASS_VALUE else np.ones(3)
    found = STAIN_MEASURES[how]((values / white).clip(0, 1))
    return None if found is None else {"how": how, "white": white.tolist(), "source": [part.tolist() for part in found]}


def normalise_stain(image: NDArray[np.uint8], look: StainLook) -> NDArray[np.uint8]:
    """The image (H, W, 3) as the reference looks."""
    source = [np.array(part) for part in look["source"]]
    changed = STAIN_TRANSFORMS[look["how"]]((image / 255 / np.array(look["white"])).clip(0, 1), source)
    return np.asarray(np.rint(changed * 255), dtype=np.uint8)
