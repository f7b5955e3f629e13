"""Arrays in, numbers out.

y: (N, C) labels in {0, 1}, NaN = unknown.  s: (N, C) scores, higher = more likely; probabilities where the metric says so.
weight: None, or (N, B): B weightings of the rows at once, which is what makes the bootstrap quick; results gain a leading axis B.
Per-label metrics give (C,) or (B, C), NaN where a label has no positives or no negatives; `macro` leaves those out and says how many.
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
    confusion,
    decisions,
    kappa,
    macro_f1,
    mcc,
    precision,
    quadratic_kappa,
    sensitivity,
    specificity,
)
from transfer.metrics.operating import OperatingPoint, Rule, at_threshold, choose_threshold, predictive, thresholds
from transfer.metrics.panel import Chosen, chosen, panel
from transfer.metrics.ranking import auroc, average_precision, macro, micro, precision_recall_curve, roc_curve

__all__ = [
    "Chosen",
    "OperatingPoint",
    "Rule",
    "accuracy",
    "at_threshold",
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "brier",
    "brier_parts",
    "choose_threshold",
    "chosen",
    "confusion",
    "cross_entropy",
    "decisions",
    "ece",
    "fit_temperature",
    "kappa",
    "log_loss",
    "macro",
    "macro_f1",
    "mcc",
    "micro",
    "panel",
    "precision",
    "precision_recall_curve",
    "predictive",
    "quadratic_kappa",
    "reliability",
    "risk_coverage",
    "roc_curve",
    "sensitivity",
    "specificity",
    "temper",
    "thresholds",
]
