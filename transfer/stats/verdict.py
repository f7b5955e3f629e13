"""The difference of two encoders with its confidence interval, and the verdict that follows from it.

A verdict is reported after Holm's correction over all comparisons of its table; the uncorrected p-value stands beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.json_types import Json
from transfer.stats.interval import Ends

Verdict = Literal[
    "better",
    "worse",
    "equivalent",  # within the margin on both sides
    "not inferior",  # not worse by more than the margin
    "not distinguishable",
    "insufficient patients",  # in the test part
    "insufficient draws",  # a label fraction with a single draw of the labeled patients
    "does not transfer",  # neither encoder is above chance on this test part
]
SIGNIFICANT: tuple[Verdict, Verdict] = ("better", "worse")
CHANCE = 0.5  # AUROC of scores that say nothing
NOT_TESTED: tuple[Verdict, Verdict] = ("insufficient patients", "insufficient draws")


@dataclass(frozen=True)
class Difference:
    """First minus second, with its confidence interval, two-sided p-value and the verdict on the first at `level`.

    verdict: from this difference alone.  withheld: the verdict that is reported instead, whatever the interval.
    holm_p: p-value after Holm's correction over the `family` comparisons of the table; NaN: not corrected.
    margin: differences up to it do not matter; None: no margin was stated.  equivalence_p, inferiority_p: p-values of the two one-sided
    tests against the margin (the larger one), and of "worse by more than the margin"; holm_* after Holm's correction.
    note: a warning about this comparison, or ""."""

    value: float
    low: float
    high: float
    p: float
    verdict: Verdict
    method: str
    level: float = 0.95
    note: str = ""
    withheld: Verdict | None = None
    holm_p: float = float("nan")
    family: int = 1
    margin: float | None = None
    equivalence_p: float = float("nan")
    inferiority_p: float = float("nan")
    holm_equivalence_p: float = float("nan")
    holm_inferiority_p: float = float("nan")

    @property
    def corrected_p(self) -> float:
        """The p-value after Holm's correction; without one, the p-value itself."""
        return self.p if np.isnan(self.holm_p) else self.holm_p

    @property
    def loses_to_holm(self) -> bool:
        """Whether the difference is significant alone, but not after Holm's correction."""
        return self.withheld is None and self.verdict in SIGNIFICANT and self.corrected_p > 1 - self.level

    @property
    def reported_verdict(self) -> Verdict:
        """The verdict to report: after Holm's correction, and withheld where the comparison does not allow one."""
        if self.withheld is not None:
            return self.withheld
        if self.verdict in SIGNIFICANT and not self.loses_to_holm:
            return self.verdict
        if self.verdict == "insufficient patients":
            return self.verdict
        alpha = 1 - self.level
        if self.margin is not None and self.holm_equivalence_p <= alpha:
            return "equivalent"
        if self.margin is not None and self.holm_inferiority_p <= alpha:
            return "not inferior"
        return "not distinguishable"

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


def decide_by_p(value: float, p: float, level: float) -> Verdict:
    """The verdict from a p-value, for a test without an interval."""
    if np.isnan(p):
        return "insufficient patients"
    if p > 1 - level or value == 0:
        return "not distinguishable"
    return "better" if value > 0 else "worse"


def clip_difference(low: float, high: float) -> tuple[float, float]:
    """The ends clipped to [-1, 1], the range of a difference of two areas, which a normal approximation can exceed; NaN stays NaN."""
    return float(np.maximum(low, -1.0)), float(np.minimum(high, 1.0))


def build_area_difference(value: float, ends: tuple[float, float], p: float, method: str, level: float, note: str) -> Difference:
    """A difference of two areas with clipped ends and the verdict from them."""
    low, high = clip_difference(*ends)
    return Difference(value, low, high, p, decide_verdict(low, high), method, level, note)


def undefined_difference(method: str, level: float, note: str) -> Difference:
    """A difference that is not defined."""
    return replace(build_area_difference(np.nan, (np.nan, np.nan), np.nan, method, level, note), withheld="insufficient patients")


def margin_p_values(ends: Ends, margin: float) -> tuple[float, float]:
    """(equivalence, inferiority): the p-value of |difference| >= margin by two one-sided tests, and of difference <= -margin.

    Each one-sided test is read from the interval: its p-value is half of one minus the level at which an end meets the margin.
    Source: Schuirmann 1987 (J Pharmacokinet Biopharm 15, 657)."""
    if np.isnan(ends(0.95)[0]):
        return float("nan"), float("nan")
    below = _one_sided_p(lambda level: ends(level)[0] + margin)  # the lower end is above -margin
    above = _one_sided_p(lambda level: margin - ends(level)[1])  # the upper end is below the margin
    return max(below, above), below


def _one_sided_p(distance: Callable[[float], float]) -> float:
    """The p-value of a one-sided test whose interval of `level` excludes the margin when `distance(level)` is positive."""
    if distance(0.0) <= 0:  # the estimate itself is beyond the margin
        return 0.5
    inside, outside = 0.0, 1.0  # levels: excludes the margin, contains it
    for _ in range(40):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if distance(middle) > 0 else (inside, middle)
    return (1 - inside) / 2


def holm(p: Array) -> FloatArray:
    """Adjusted p-values: rejecting those below alpha keeps the probability of any false rejection below alpha (Holm 1979). NaN stays."""
    p = np.asarray(p, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return adjusted


def correct_family(differences: Sequence[Difference]) -> list[Difference]:
    """The differences with p-values after Holm's correction over all of them that have a verdict.

    A comparison without a verdict (insufficient patients, insufficient draws) is not a test, and so not part of the family."""
    tested = [d.withheld not in NOT_TESTED and not np.isnan(d.p) for d in differences]
    each = [
        holm(np.array([value if test else np.nan for value, test in zip(values, tested, strict=True)]))
        for values in zip(*((d.p, d.equivalence_p, d.inferiority_p) for d in differences), strict=True)
    ]
    size = sum(tested)
    return [
        replace(d, holm_p=float(p), holm_equivalence_p=float(e), holm_inferiority_p=float(i), family=size)
        for d, p, e, i in zip(differences, *each, strict=True)
    ]
