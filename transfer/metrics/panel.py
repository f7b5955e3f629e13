"""Every metric of one test part, with what is decided by a threshold, and what is tempered, as validation chose it.

Labels are averaged over those for which a metric is defined. Shapes: N rows, C labels.
"""

from dataclasses import dataclass
from typing import Any

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

DECISION_METRICS = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "precision": precision,
    "mcc": mcc,
    "kappa": kappa,
}


@dataclass(frozen=True)
class ValidationChoice:
    """What validation rows fixed: a threshold a label (C,), and one temperature (NaN where the scores are no probabilities)."""

    kind: str
    threshold: Array
    temperature: float


def choose_on_validation(y: Array, s: Array, kind: str, rule: ThresholdRule = "youden", target: float = 0.9) -> ValidationChoice:
    """From validation rows. A label of one known class keeps the threshold 0.5."""
    known = np.isfinite(y).any() and are_probabilities(s)
    return ValidationChoice(kind, choose_thresholds(y, s, rule, target), fit_temperature(y, s, kind) if known else float("nan"))


def are_probabilities(s: Array) -> bool:
    """Whether scores can be read as probabilities (up to rounding)."""
    return bool(s.min(initial=0.0) >= -1e-6 and s.max(initial=0.0) <= 1 + 1e-6)


def compute_all_metrics(y: Array, s: Array, by: ValidationChoice, prevalence: float | None = None) -> dict[str, float]:
    """Name and value of every metric; NaN where it is not defined. prevalence: the one predictive values are for; None: the observed."""
    values: dict[str, Any] = {"auroc": auroc(y, s), "auroc_micro": micro(auroc, y, s), "ap": average_precision(y, s)}
    values |= {"ap_micro": micro(average_precision, y, s)}
    values |= {name: of(y, s, by.kind, by.threshold) for name, of in DECISION_METRICS.items()}
    if by.kind == "multiclass":
        values["quadratic_kappa"] = quadratic_kappa(y, s, by.kind)
    else:
        points = [at_threshold(y[:, c], s[:, c], by.threshold[c], prevalence) for c in range(y.shape[1])]
        values |= {name: [getattr(p, name) for p in points] for name in ("sensitivity", "specificity", "ppv", "npv", "prevalence")}
    flat = {name: macro(np.atleast_1d(value))[0] for name, value in values.items()}
    return {**flat, **calibration_errors(y, s, by)}


def calibration_errors(y: Array, s: Array, by: ValidationChoice) -> dict[str, float]:
    """Errors of the probabilities as they are and, as `*_tempered`, after the validation temperature; {} where they are none."""
    if not are_probabilities(s) or not np.isfinite(y).any():
        return {}
    p = np.clip(s, 0, 1)
    found = _probability_errors(y, p, by.kind) | {"temperature": by.temperature}
    if np.isfinite(by.temperature):
        found |= {f"{name}_tempered": value for name, value in _probability_errors(y, temper(p, by.temperature, by.kind), by.kind).items()}
    right, sure = confidence(y, p) if by.kind == "multiclass" else threshold_margins(y, p, by.threshold)
    return found | {"risk_coverage_area": risk_coverage(1 - right[~np.isnan(right)], sure[~np.isnan(right)])["area"]}


def _probability_errors(y: Array, p: Array, kind: str) -> dict[str, float]:
    top, sure = (a[:, None] for a in confidence(y, p)) if kind == "multiclass" else (y, p)  # of a multi-class task: of the chosen class
    found = {"ece": ece(top, sure), "ece_equal_mass": ece(top, sure, mass="equal_mass"), "brier": brier(y, p)}
    found["log_loss"] = cross_entropy(y, p) if kind == "multiclass" else log_loss(y, p)
    known = [c for c in range(y.shape[1]) if np.isfinite(y[:, c]).any()]
    parts = [brier_parts(y[:, c], p[:, c]) for c in known]
    found |= {f"brier_{name}": np.array([part[name] for part in parts]) for name in ("reliability", "resolution", "uncertainty", "within")}
    return {name: macro(value)[0] for name, value in found.items()}


def threshold_margins(y: Array, p: Array, threshold: Array) -> tuple[Array, Array]:
    """Of every answer: was the decision right (1, 0, NaN), and how far the probability lies from its threshold, over all answers alike."""
    right = np.where(np.isnan(y), np.nan, (p >= threshold) == (y > 0.5))
    return right.ravel(), np.abs(p - threshold).ravel()
