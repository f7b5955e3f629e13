"""The difference of two encoders with its confidence interval, and the verdict that follows from it."""

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from encoders.runtime.json_types import Json

Verdict = Literal["better", "worse", "not distinguishable", "insufficient patients"]


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
