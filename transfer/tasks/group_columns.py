"""Groups of test images by a column: text values, or age bands. Images without a value form the group "not stated".

Shapes: M test images.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import Array
from encoders.runtime.redact import DATE_PATTERN
from encoders.runtime.unknown_values import is_unknown

AGE_BANDS = (18, 40, 65)  # lower limits in years: children below 18, and three bands of adults
NOT_STATED = "not stated"
MOST_LOOKED_AT = 100  # distinct values of a column that are compared with the pattern of a date


IDENTIFYING_WORDS = {
    "name", "names", "surname", "forename", "birth", "birthday", "birthdate", "dob", "born", "date", "datetime", "day", "mrn", "accession",
    "uid", "address", "phone", "telephone", "email", "patient", "person", "physician", "doctor", "radiologist", "operator", "ssn", "zip",
}  # fmt: skip


def identifies_people(column: str, values: Array) -> bool:
    """Whether a column names or dates people, so that no table may list its values: by its name, such as `patient_name` or `birth`, or
    because a value is a date."""
    words = set(re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column).lower()))
    if words & IDENTIFYING_WORDS and not is_age_column(column):
        return True
    if values.dtype.kind in "fiub":
        return False
    return any(DATE_PATTERN.search(str(value)) for value in np.unique(values.astype(str))[:MOST_LOOKED_AT])


def is_age_column(column: str) -> bool:
    """Whether the name of a column contains the word age: `age`, `patient_age`, `Age (years)`."""
    return "age" in re.split(r"[^a-z]+", column.lower())


def name_groups(column: str, values: Array, bands: Sequence[float] = AGE_BANDS) -> NDArray[np.str_]:
    """(M,) name of every image's group. bands: lower limits of the age bands, in years."""
    if is_age_column(column) and values.dtype.kind in "fiu":
        names = np.array([*name_age_bands(bands), NOT_STATED])
        years = values.astype(np.float64)
        return names[np.where(np.isfinite(years), np.searchsorted(np.asarray(bands, float), years, side="right"), len(names) - 1)]
    # The store has decided which words are values of the column, so the values of a few images do not decide it again.
    unknown = ~np.isfinite(values) if values.dtype.kind == "f" else [is_unknown(str(v), beside_words=True) for v in values]
    text = [f"{v:g}" for v in values] if values.dtype.kind == "f" else [str(v).strip() for v in values]
    return np.array([NOT_STATED if hole else t for t, hole in zip(text, unknown, strict=True)])


def name_age_bands(bands: Sequence[float]) -> list[str]:
    """`under 18`, `18 to under 40`, ..., `65 and over`."""
    whole = [f"{b:g}" for b in bands]
    return [f"under {whole[0]}", *(f"{a:g} to under {b:g}" for a, b in pairwise(bands)), f"{whole[-1]} and over"]


def order_groups(column: str, names: NDArray[np.str_], bands: Sequence[float] = AGE_BANDS) -> list[str]:
    """The groups that occur: age bands ascending, text alphabetically, "not stated" last."""
    found = set(names.tolist())
    first = [b for b in name_age_bands(bands) if b in found] if is_age_column(column) else []
    return [*first, *sorted(found - {*first, NOT_STATED}), *([NOT_STATED] if NOT_STATED in found else [])]
