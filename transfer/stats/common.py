"""Intervals and differences of metrics, and the minimum number of patients for a verdict."""

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from encoders.runtime.arrays import Array, IntArray
from encoders.runtime.json_types import Json

Verdict = Literal["better", "worse", "not distinguishable", "insufficient patients"]
MIN_PATIENTS = 20  # per class; with fewer, the coverage of the intervals is not guaranteed (tests/transfer/stats/test_coverage.py)


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval at `level`; `note` is a warning or "". NaN where it is not defined."""

    value: float
    low: float
    high: float
    method: str
    level: float = 0.95
    note: str = ""

    @property
    def ends(self) -> tuple[float, float, float]:
        """Value, lower end and upper end."""
        return self.value, self.low, self.high

    def asdict(self) -> dict[str, Json]:
        return asdict(self)


@dataclass(frozen=True)
class Difference:
    """First minus second, with its confidence interval, two-sided p-value and the verdict on the first at `level`."""

    value: float
    low: float
    high: float
    p: float
    verdict: Verdict
    method: str
    level: float = 0.95
    note: str = ""

    @property
    def reported_verdict(self) -> Verdict:
        """The verdict to report: "insufficient patients" when `note` says so, whatever the interval."""
        return "insufficient patients" if self.note else self.verdict

    def asdict(self) -> dict[str, Json]:
        return asdict(self)


def decide_verdict(low: float, high: float) -> Verdict:
    """The verdict from the interval of a difference (higher is better). An interval that contains zero is not distinguishable; one that is
    not defined (NaN) means insufficient patients."""
    if np.isnan(low) or np.isnan(high):
        return "insufficient patients"
    if low > 0:
        return "better"
    return "worse" if high < 0 else "not distinguishable"


def clip_difference(low: float, high: float) -> tuple[float, float]:
    """The ends clipped to [-1, 1], the range of a difference of two areas, which a normal approximation can exceed; NaN stays NaN."""
    return float(np.maximum(low, -1.0)), float(np.minimum(high, 1.0))


def build_area_difference(value: float, ends: tuple[float, float], p: float, method: str, level: float, note: str) -> Difference:
    """A difference of two areas with clipped ends and the verdict from them."""
    low, high = clip_difference(*ends)
    return Difference(value, low, high, p, decide_verdict(low, high), method, level, note)


def undefined_difference(method: str, level: float, note: str) -> Difference:
    """A difference that is not defined."""
    return build_area_difference(np.nan, (np.nan, np.nan), np.nan, method, level, note)


def bound_perfect_interval(value: float, low: float, high: float, fewest: int, level: float) -> tuple[float, float]:
    """The ends of a resampled interval; when the value and both ends are 1, the lower end is `perfect_lower_bound`."""
    return (perfect_lower_bound(fewest, level), 1.0) if value == 1.0 and low == high == 1.0 else (low, high)


def perfect_lower_bound(patients: int, level: float) -> float:
    """The success rate at which `patients` successes out of `patients` have probability (1 - level) / 2; NaN for fewer than two."""
    return float(((1 - level) / 2) ** (1 / patients)) if patients > 1 else float("nan")


def encode_patients(patient: Array) -> tuple[IntArray, int]:
    """(N,) patients as integer codes from 0, and the number of patients."""
    names, code = np.unique(np.asarray(patient).astype(str), return_inverse=True)
    return code.reshape(-1), len(names)


def patients_per_class(y: Array, patient: Array) -> IntArray:
    """(C, 2) number of patients with a negative and with a positive row, for every label."""
    y = to_columns(y)
    code, _ = encode_patients(patient)
    return np.array([[len(np.unique(code[y[:, c] == value])) for value in (0, 1)] for c in range(y.shape[1])])


def count_fewest_patients(y: Array, patient: Array) -> int | None:
    """The smallest number of patients in a class, over the labels with both classes; None when no label has both."""
    counts = patients_per_class(y, patient)
    defined = counts[(counts > 0).all(axis=1)]
    return int(defined.min()) if len(defined) else None


def few_patients_note(y: Array, patient: Array) -> str:
    """The warning for fewer than MIN_PATIENTS patients in a class, or ""."""
    few = count_fewest_patients(y, patient)
    if few is None:
        return "no label has patients of both classes"
    return f"insufficient patients: {few} in the smaller class, at least {MIN_PATIENTS} are needed" if few < MIN_PATIENTS else ""


def to_columns(a: Array) -> Array:
    """(N, C); (N,) becomes (N, 1)."""
    a = np.asarray(a)
    return a[:, None] if a.ndim == 1 else a
