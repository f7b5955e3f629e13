"""Operating points: a threshold chosen on validation rows, and its rates at the observed or at a given prevalence."""

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.errors import InputError
from transfer.metrics.ranking import roc_curve

ThresholdRule = Literal["sensitivity", "specificity", "youden"]


@dataclass(frozen=True)
class OperatingPoint:
    """Rates at a threshold; `ppv` and `npv` are for `prevalence`. NaN where the denominator of a rate is 0."""

    threshold: float
    sensitivity: float
    specificity: float
    ppv: float
    npv: float
    prevalence: float

    def asdict(self) -> dict[str, float]:
        return asdict(self)

    def rates(self) -> dict[str, float]:
        """Everything but the threshold, in the order of the table of metrics."""
        return {name: value for name, value in self.asdict().items() if name != "threshold"}


def choose_threshold(y: Array, s: Array, rule: ThresholdRule = "youden", target: float = 0.9) -> float:
    """The threshold (positive at s >= threshold) for one label, from validation rows.

    sensitivity: the highest that reaches the target.  specificity: the lowest that reaches it.  youden: sensitivity + specificity maximal.
    y, s: (N,); NaN labels are ignored.  Raises InputError unless both classes occur."""
    known = y[~np.isnan(y)]
    if len(known) == 0 or known.min() == known.max():
        raise InputError("an operating point needs positive and negative validation rows, and there is only one class")
    if rule not in ("sensitivity", "specificity", "youden"):
        raise InputError(f"no operating rule called {rule!r}; choose sensitivity, specificity or youden")
    false, hit, threshold = roc_curve(y, s)
    if rule == "sensitivity":
        return float(threshold[np.flatnonzero(hit >= target - 1e-12)[0]])  # 1e-12: in floating point, 9/10 must reach a target of 0.9
    if rule == "specificity":
        return float(threshold[np.flatnonzero(1 - false >= target - 1e-12)[-1]])
    return float(threshold[np.argmax(hit - false)])


def choose_thresholds(y: Array, s: Array, rule: ThresholdRule = "youden", target: float = 0.9) -> FloatArray:
    """(C,) `choose_threshold` of every label, from validation rows (N, C). A label with a single known class has 0.5."""
    cuts = np.full(y.shape[1], 0.5)
    for c in range(y.shape[1]):
        with suppress(InputError):  # the validation rows have a single class
            cuts[c] = choose_threshold(y[:, c], s[:, c], rule, target)
    return cuts


def at_threshold(y: Array, s: Array, threshold: float, prevalence: float | None = None) -> OperatingPoint:
    """Rates of one label at `threshold`; predictive values at the observed prevalence, or at a given one by Bayes' rule. y, s: (N,)."""
    known = ~np.isnan(y)
    positive, predicted = y[known] > 0.5, s[known] >= threshold
    share = float(positive.mean()) if prevalence is None and len(positive) else (prevalence if prevalence is not None else float("nan"))
    sensitivity = float(predicted[positive].mean()) if positive.any() else float("nan")
    specificity = float((~predicted[~positive]).mean()) if (~positive).any() else float("nan")
    return OperatingPoint(float(threshold), sensitivity, specificity, *predictive_values(sensitivity, specificity, share), share)


def predictive_values(sensitivity: float, specificity: float, prevalence: float) -> tuple[float, float]:
    """PPV and NPV at a prevalence, by Bayes' rule; NaN when no row is predicted positive, or none negative."""
    ppv = _bayes(sensitivity * prevalence, (1 - specificity) * (1 - prevalence))
    return ppv, _bayes(specificity * (1 - prevalence), (1 - sensitivity) * prevalence)


def _bayes(correct: float, wrong: float) -> float:
    return correct / (correct + wrong) if correct + wrong > 0 else float("nan")
