"""Metrics of labels and scores. Arrays in, numbers out.

y: (N, C) labels in {0, 1}, NaN = unknown.  s: (N, C) scores, higher = more likely; probabilities where the metric says so.
weight: None, or (N, B): B weightings of the rows at once, which makes the bootstrap fast; results gain a leading axis B.
Per-label metrics return (C,) or (B, C), NaN for a label without positives or negatives; `macro` ignores those and returns their number.
"""

from transfer.metrics.calibration import (
    brier,
    brier_parts,
    cross_entropy,
    ece,
    fit_temperature,
    log_loss,
    reliability,
    risk_coverage,
    temper,
)
from transfer.metrics.decisions import (
    accuracy,
    balanced_accuracy,
    confusion_matrix,
    decide_classes,
    kappa,
    macro_f1,
    mcc,
    precision,
    quadratic_kappa,
    sensitivity,
    specificity,
)
from transfer.metrics.net_benefit import net_benefit, treat_all
from transfer.metrics.operating import OperatingPoint, ThresholdRule, at_threshold, choose_threshold, choose_thresholds, predictive_values
from transfer.metrics.panel import ValidationChoice, choose_on_validation, compute_all_metrics
from transfer.metrics.ranking import auroc, average_precision, macro, micro, precision_recall_curve, roc_curve
from transfer.metrics.recalibration import Recalibration, fit_recalibration

__all__ = [
    "OperatingPoint",
    "Recalibration",
    "ThresholdRule",
    "ValidationChoice",
    "accuracy",
    "at_threshold",
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "brier",
    "brier_parts",
    "choose_on_validation",
    "choose_threshold",
    "choose_thresholds",
    "compute_all_metrics",
    "confusion_matrix",
    "cross_entropy",
    "decide_classes",
    "ece",
    "fit_recalibration",
    "fit_temperature",
    "kappa",
    "log_loss",
    "macro",
    "macro_f1",
    "mcc",
    "micro",
    "net_benefit",
    "precision",
    "precision_recall_curve",
    "predictive_values",
    "quadratic_kappa",
    "reliability",
    "risk_coverage",
    "roc_curve",
    "sensitivity",
    "specificity",
    "temper",
    "treat_all",
]
