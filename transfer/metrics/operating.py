"""Operating points: a threshold chosen on validation, then what it means for patients at the observed and at a stated prevalence."""

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.errors import InputError
from transfer.metrics.ranking import roc_curve

ThresholdRule = Literal["sensitivity", "specificity", "youden"]


@dataclass(frozen=True)
class OperatingPoint:
    """Rates at a threshold; `ppv` and `npv` hold at `prevalence`. NaN where a rate has no denominator."""

    threshold: float
    sensitivity: float
    specificity: float
    ppv: float
    npv: float
    prevalence: float

    def asdict(self) -> dict[str, float]:
        return asdict(self)


def choose_threshold(y: NDArray[Any], s: NDArray[Any], rule: ThresholdRule = "youden", target: float = 0.9) -> float:
    """The threshold (positive at s >= threshold) for one label, from validation rows.

    sensitivity: the highest that reaches the target.  specificity: the lowest that reaches it.  youden: sensitivity + specificity maximal.
    y, s: (N,), NaN labels left out.  Raises InputError without both classes."""
    known = y[~np.isnan(y)]
    if len(known) == 0 or known.min() == known.max():
        raise InputError("an operating point needs positive and negative validation rows; there is only one class")
    if rule not in ("sensitivity", "specificity", "youden"):
        raise InputError(f"operating rule {rule!r} is unknown; choose sensitivity, specificity or youden")
    false, hit, threshold = roc_curve(y, s)
    if rule == "sensitivity":
        return float(threshold[np.flatnonzero(hit >= target - 1e-12)[0]])  # 1e-12: 9/10 must reach a target of 0.9 in floating point
    if rule == "specificity":
        return float(threshold[np.flatnonzero(1 - false >= target - 1e-12)[-1]])
    return float(threshold[np.argmax(hit - false)])


def choose_thresholds(y: NDArray[Any], s: NDArray[Any], rule: ThresholdRule = "youden", target: float = 0.9) -> NDArray[np.float64]:
    """(C,) `choose_threshold` of every label, from validation rows (N, C). A label of one known class keeps 0.5."""
    cuts = np.full(y.shape[1], 0.5)
    for c in range(y.shape[1]):
        with suppress(InputError):  # one class only among the validation patients
            cuts[c] = choose_threshold(y[:, c], s[:, c], rule, target)
    return cuts


def at_threshold(y: NDArray[Any], s: NDArray[Any], threshold: float, prevalence: float | None = None) -> OperatingPoint:
    """Rates of one label at `threshold`; predictive values at the observed prevalence, or at a stated one by Bayes' rule. y, s: (N,)."""
    known = ~np.isnan(y)
    positive, called = y[known] > 0.5, s[known] >= threshold
    share = float(positive.mean()) if prevalence is None and len(positive) else (prevalence if prevalence is not None else float("nan"))
    sensitivity = float(called[positive].mean()) if positive.any() else float("nan")
    specificity = float((~called[~positive]).mean()) if (~positive).any() else float("nan")
    return OperatingPoint(float(threshold), sensitivity, specificity, *predictive_values(sensitivity, specificity, share), share)


def predictive_values(sensitivity: float, specificity: float, prevalence: float) -> tuple[float, float]:
    """PPV and NPV at a prevalence, by Bayes' rule; NaN where nobody is called positive, or nobody negative."""
    ppv = _bayes(sensitivity * prevalence, (1 - specificity) * (1 - prevalence))
    return ppv, _bayes(specificity * (1 - prevalence), (1 - sensitivity) * prevalence)


def _bayes(right: float, wrong: float) -> float:
    return right / (right + wrong) if right + wrong > 0 else float("nan")
