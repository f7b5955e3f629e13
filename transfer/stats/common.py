"""What an interval and a comparison look like, and when there are insufficient patients to say anything."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import Array

Verdict = Literal["better", "worse", "not distinguishable", "insufficient patients"]
MIN_PATIENTS = 20  # patients a class below which the intervals are not held to their coverage (tests/transfer/stats/test_coverage.py)


@dataclass(frozen=True)
class Interval:
    """A value and where it may lie at `level`; `note` is a warning or empty. NaN where nothing can be said."""

    value: float
    low: float
    high: float
    method: str
    level: float = 0.95
    note: str = ""

    def asdict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Difference:
    """First minus second, with its interval, two-sided p-value and what may be said of the first at `level`."""

    value: float
    low: float
    high: float
    p: float
    verdict: Verdict
    method: str
    level: float = 0.95
    note: str = ""

    @property
    def told(self) -> Verdict:
        """The verdict that may be told: none on fewer patients than intervals are known to hold for, though there is an interval."""
        return "insufficient patients" if self.note else self.verdict

    def asdict(self) -> dict[str, Any]:
        return asdict(self)


def decide_verdict(low: float, high: float) -> Verdict:
    """What an interval of a difference (higher is better) allows to say. One that touches zero allows nothing; where none could be made
    there were insufficient patients, which is no finding either way."""
    if np.isnan(low) or np.isnan(high):
        return "insufficient patients"
    if low > 0:
        return "better"
    return "worse" if high < 0 else "not distinguishable"


def clip_difference(low: float, high: float) -> tuple[float, float]:
    """The ends of a difference of two areas, which lies between -1 and 1 whatever a normal approximation says; NaN stays."""
    return float(np.maximum(low, -1.0)), float(np.minimum(high, 1.0))


def build_area_difference(value: float, ends: tuple[float, float], p: float, method: str, level: float, note: str) -> Difference:
    """A difference of two areas with its ends kept possible and the verdict that they allow."""
    low, high = clip_difference(*ends)
    return Difference(value, low, high, p, decide_verdict(low, high), method, level, note)


def undefined_difference(method: str, level: float, note: str) -> Difference:
    """A difference of which nothing can be said."""
    return build_area_difference(np.nan, (np.nan, np.nan), np.nan, method, level, note)


def bound_perfect_interval(value: float, low: float, high: float, fewest: int, level: float) -> tuple[float, float]:
    """The ends of a resampled interval; without a mistake (a value of 1) the lower one is that of `faultless`."""
    return (perfect_lower_bound(fewest, level), 1.0) if value == 1.0 and low == high == 1.0 else (low, high)


def perfect_lower_bound(patients: int, level: float) -> float:
    """The rate of right answers at which so many patients without a mistake have probability (1 - level) / 2; NaN for fewer than two."""
    return float(((1 - level) / 2) ** (1 / patients)) if patients > 1 else float("nan")


def encode_patients(patient: Array) -> tuple[NDArray[np.int64], int]:
    """(N,) patients as numbers from 0 on, and how many there are."""
    names, code = np.unique(np.asarray(patient).astype(str), return_inverse=True)
    return code.reshape(-1), len(names)


def patients_per_class(y: Array, patient: Array) -> NDArray[np.int64]:
    """(C, 2) number of patients with a negative and with a positive row, for every label."""
    y = to_columns(y)
    code, _ = encode_patients(patient)
    return np.array([[len(np.unique(code[y[:, c] == value])) for value in (0, 1)] for c in range(y.shape[1])])


def count_fewest_patients(y: Array, patient: Array) -> int | None:
    """Patients in the smaller class of the label with fewest, among labels with both classes; None where there is none."""
    counts = patients_per_class(y, patient)
    defined = counts[(counts > 0).all(axis=1)]
    return int(defined.min()) if len(defined) else None


def few_patients_note(y: Array, patient: Array) -> str:
    """The warning for fewer than 20 patients in a class that has any, or ""."""
    few = count_fewest_patients(y, patient)
    if few is None:
        return "no label has patients of both classes"
    return f"too few: {few} patient{'s' if few != 1 else ''} in a class, at least {MIN_PATIENTS} are needed" if few < MIN_PATIENTS else ""


def to_columns(a: Array) -> Array:
    a = np.asarray(a)
    return a[:, None] if a.ndim == 1 else a
