"""All metrics of one test part, with thresholds and temperature chosen on validation rows.

Each metric is averaged over the labels for which it is defined. Shapes: N rows, C labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from encoders.runtime.arrays import Array
from transfer.metrics.calibration import (
    brier,
    brier_parts,
    confidence,
    cross_entropy,
    ece,
    fit_temperature,
    log_loss,
    risk_coverage,
    temper,
)
from transfer.metrics.decisions import accuracy, balanced_accuracy, kappa, macro_f1, mcc, precision, quadratic_kappa
from transfer.metrics.operating import ThresholdRule, at_threshold, choose_thresholds
from transfer.metrics.ranking import auroc, average_precision, macro, micro
from transfer.metrics.recalibration import Recalibration, fit_recalibration

# (labels, scores) -> (C,) values, or one value over all cells.
RANKING_METRICS: dict[str, Callable[[Array, Array], Array]] = {
    "auroc": auroc,
    "auroc_micro": partial(micro, auroc),
    "ap": average_precision,
    "ap_micro": partial(micro, average_precision),
}
# (labels, scores, kind of task, thresholds) -> (T,) values.
DECISION_METRICS: dict[str, Callable[[Array, Array, str, Array], Array]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "precision": precision,
    "mcc": mcc,
    "kappa": kappa,
}


@dataclass(frozen=True)
class ValidationChoice:
    """Chosen on validation rows: one threshold per label (C,), and one temperature (NaN when the scores are not probabilities).

    order: columns of the classes from lowest to highest; () for classes without an order, which have no quadratic kappa."""

    kind: str
    threshold: Array
    temperature: float
    order: tuple[int, ...] = ()


def choose_on_validation(
    y: Array, s: Array, kind: str, rule: ThresholdRule = "youden", target: float = 0.9, order: tuple[int, ...] = ()
) -> ValidationChoice:
    """Thresholds and temperature from validation rows. A label with a single known class has the threshold 0.5.

    order: of the classes, as in `ValidationChoice`."""
    known = np.isfinite(y).any() and are_probabilities(s)
    temperature = fit_temperature(y, s, kind) if known else float("nan")
    return ValidationChoice(kind, choose_thresholds(y, s, rule, target), temperature, order)


def are_probabilities(s: Array) -> bool:
    """Whether all scores are in [0, 1], up to rounding."""
    return bool(s.min(initial=0.0) >= -1e-6 and s.max(initial=0.0) <= 1 + 1e-6)


def compute_all_metrics(
    y: Array, s: Array, choice: ValidationChoice, prevalence: float | None = None, fits: Sequence[Recalibration] | None = None
) -> dict[str, float]:
    """Name and value of every metric; NaN where it is not defined. prevalence: for the predictive values; None: the observed one.

    fits: `fit_recalibration` of each label, of a multi-class task that of the predicted class, if it was computed before."""
    values = {name: metric(y, s) for name, metric in RANKING_METRICS.items()}
    values |= {name: metric(y, s, choice.kind, choice.threshold) for name, metric in DECISION_METRICS.items()}
    if choice.order:
        values["quadratic_kappa"] = quadratic_kappa(y, s, choice.order)
    if choice.kind != "multiclass":
        rates = [at_threshold(y[:, c], s[:, c], choice.threshold[c], prevalence).rates() for c in range(y.shape[1])]
        values |= {name: np.array([of_label[name] for of_label in rates]) for name in rates[0]}
    flat = {name: macro(np.atleast_1d(value))[0] for name, value in values.items()}
    return {**flat, **calibration_errors(y, s, choice, fits)}


def calibration_errors(y: Array, s: Array, choice: ValidationChoice, fits: Sequence[Recalibration] | None = None) -> dict[str, float]:
    """Errors of the probabilities and, as `*_tempered`, of those after temperature scaling; {} when the scores are not probabilities."""
    if not are_probabilities(s) or not np.isfinite(y).any():
        return {}
    p = np.clip(s, 0, 1)
    true, probability = calibrated_columns(y, p, choice.kind)
    fits = fits or [fit_recalibration(true[:, c], probability[:, c]) for c in range(true.shape[1])]
    errors = _probability_errors(y, p, choice.kind, fits) | {"temperature": choice.temperature}
    if np.isfinite(choice.temperature):
        q = temper(p, choice.temperature, choice.kind)
        true, probability = calibrated_columns(y, q, choice.kind)
        starts = [_tempered_start(fit, choice) for fit in fits]
        fits = [fit_recalibration(true[:, c], probability[:, c], start=start) for c, start in enumerate(starts)]
        errors |= {f"{name}_tempered": value for name, value in _probability_errors(y, q, choice.kind, fits).items()}
    correct, certainty = confidence(y, p) if choice.kind == "multiclass" else threshold_margins(y, p, choice.threshold)
    known = ~np.isnan(correct)
    return errors | {"risk_coverage_area": risk_coverage(1 - correct[known], certainty[known])["area"]}


def calibrated_columns(y: Array, p: Array, kind: str) -> tuple[Array, Array]:
    """Truth and probability (N, C) whose agreement is calibration: of each label, of a multi-class task those of the predicted class."""
    if kind != "multiclass":
        return y, p
    correct, probability = confidence(y, p)
    return correct[:, None], probability[:, None]


def _tempered_start(fit: Recalibration, choice: ValidationChoice) -> tuple[float, float] | None:
    """Where to start the fit of tempered probabilities: their logits are divided by the temperature, so the slope is multiplied by it."""
    if choice.kind == "multiclass" or not np.isfinite(fit.slope.value):
        return None
    return fit.intercept.value, fit.slope.value * choice.temperature


def _probability_errors(y: Array, p: Array, kind: str, fits: Sequence[Recalibration]) -> dict[str, float]:
    true, probability = calibrated_columns(y, p, kind)
    errors = {"ece": ece(true, probability), "ece_equal_mass": ece(true, probability, mass="equal_mass"), "brier": brier(y, p)}
    errors["log_loss"] = cross_entropy(y, p) if kind == "multiclass" else log_loss(y, p)
    errors |= _recalibration(fits)
    known = [c for c in range(y.shape[1]) if np.isfinite(y[:, c]).any()]
    parts = [brier_parts(y[:, c], p[:, c]) for c in known]
    errors |= {f"brier_{name}": np.array([part[name] for part in parts]) for name in ("reliability", "resolution", "uncertainty", "within")}
    return {name: macro(value)[0] for name, value in errors.items()}


def _recalibration(fits: Sequence[Recalibration]) -> dict[str, Array]:
    """Calibration slope and intercepts (C,) of each column."""
    return {
        "calibration_slope": np.array([fit.slope.value for fit in fits]),
        "calibration_intercept": np.array([fit.intercept.value for fit in fits]),
        "calibration_in_the_large": np.array([fit.in_the_large.value for fit in fits]),
    }


def threshold_margins(y: Array, p: Array, threshold: Array) -> tuple[Array, Array]:
    """For every row and label: whether the decision is correct (1, 0, NaN), and the distance of the probability from its threshold."""
    correct = np.where(np.isnan(y), np.nan, (p >= threshold) == (y > 0.5))
    return correct.ravel(), np.abs(p - threshold).ravel()
