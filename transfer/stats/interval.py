"""A metric with its confidence interval."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Protocol, runtime_checkable

from encoders.runtime.json_types import Json

Ends = Callable[[float], tuple[float, float]]  # an interval as a function of its level


@runtime_checkable
class TestedEnds(Protocol):
    """An interval of a difference with the p-value of its own test of zero, so that the level need not be searched for."""

    def __call__(self, level: float, /) -> tuple[float, float]: ...

    def p_value(self) -> float: ...


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


def bound_perfect_interval(value: float, low: float, high: float, fewest: int, level: float) -> tuple[float, float]:
    """The ends of a resampled interval; when the value and both ends are 1, the lower end is `perfect_lower_bound`."""
    return (perfect_lower_bound(fewest, level), 1.0) if value == 1.0 and low == high == 1.0 else (low, high)


def perfect_lower_bound(patients: int, level: float) -> float:
    """The success rate at which `patients` successes out of `patients` have probability (1 - level) / 2; NaN for fewer than two."""
    return float(((1 - level) / 2) ** (1 / patients)) if patients > 1 else float("nan")
