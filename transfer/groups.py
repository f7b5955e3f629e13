"""Columns that divide test images into groups: text as it is, ages as bands. What is not stated is a group of its own.

Shapes: M test images.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

BANDS = (18, 40, 65)  # years: children, and three bands of adults
UNKNOWN = "not stated"


def is_age(column: str) -> bool:
    """Whether a column's name says age: `age`, `patient_age`, `Age (years)`."""
    return "age" in re.split(r"[^a-z]+", column.lower())


def named(column: str, values: NDArray[Any], bands: Sequence[float] = BANDS) -> NDArray[np.str_]:
    """(M,) name of every image's group. bands: the ages, in years, at which a new band begins."""
    if is_age(column) and values.dtype.kind in "fiu":
        names = np.array([*bands_named(bands), UNKNOWN])
        years = values.astype(np.float64)
        return names[np.where(np.isfinite(years), np.searchsorted(np.asarray(bands, float), years, side="right"), len(names) - 1)]
    text = [f"{v:g}" if np.isfinite(v) else "" for v in values] if values.dtype.kind == "f" else [str(v).strip() for v in values]
    return np.array([t or UNKNOWN for t in text])


def bands_named(bands: Sequence[float]) -> list[str]:
    """`under 18`, `18 to 39`, ..., `65 and over`."""
    whole = [f"{b:g}" for b in bands]
    return [f"under {whole[0]}", *(f"{a:g} to under {b:g}" for a, b in pairwise(bands)), f"{whole[-1]} and over"]


def in_order(column: str, names: NDArray[np.str_], bands: Sequence[float] = BANDS) -> list[str]:
    """The groups that occur: ages ascending, text by its letters, what is not stated last."""
    found = set(names.tolist())
    first = [b for b in bands_named(bands) if b in found] if is_age(column) else []
    return [*first, *sorted(found - {*first, UNKNOWN}), *([UNKNOWN] if UNKNOWN in found else [])]
