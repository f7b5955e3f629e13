"""Stain normalisation as a step of ingest: measured once a slide, or once a file, and then the same for each of its tiles.

Glass is made white first, as staintools does it, because scanners and cameras tint it and a tint counts as stain.

Shapes: H, W of an image.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders import stain
from encoders.runtime.errors import unknown

MEASURES: dict[str, Any] = {"macenko": stain.estimate, "reinhard": stain.statistics}
CHANGES: dict[str, Any] = {
    "macenko": lambda values, source: stain.macenko(values, stain.Stains(*source)),
    "reinhard": lambda values, source: stain.reinhard(values, tuple(source)),
}
BRIGHT = 99.0  # percentile of every channel that is taken for glass
GLASS = 0.75  # ... where no channel of it is darker than this: else there is no glass in view, and white stays 1
Look = dict[str, Any]  # how, white (3,), source: what was measured, as JSON holds it


def checked(how: str | None) -> str | None:
    """The name of a normalisation, or None. Raises InputError for another one."""
    if how is not None and how not in MEASURES:
        raise unknown("stain normalisation", how, list(MEASURES))
    return how


def measured(how: str, image: NDArray[np.uint8]) -> Look | None:
    """What a slide's tiles, or one file, (..., 3) look like; None where there is too little tissue, or but one colour."""
    values = image.reshape(-1, 3) / 255
    white = np.percentile(values, BRIGHT, axis=0)
    white = white if white.min() >= GLASS else np.ones(3)
    found = MEASURES[how]((values / white).clip(0, 1))
    return None if found is None else {"how": how, "white": white.tolist(), "source": [part.tolist() for part in found]}


def normalised(image: NDArray[np.uint8], look: Look) -> NDArray[np.uint8]:
    """The image (H, W, 3) as the reference looks."""
    source = [np.array(part) for part in look["source"]]
    changed = CHANGES[look["how"]]((image / 255 / np.array(look["white"])).clip(0, 1), source)
    return np.asarray(np.rint(changed * 255), dtype=np.uint8)
