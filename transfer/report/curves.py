"""Reliability and risk-coverage curves of a row; ROC and precision-recall curves are in `curve_bands`.

Shapes: N predictions.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from encoders.runtime.arrays import Array
from transfer.metrics import choose_on_validation, reliability, risk_coverage
from transfer.metrics.calibration import RiskCoverage, confidence
from transfer.metrics.panel import are_probabilities, threshold_margins
from transfer.records.record import Record


def gather_probabilities(records: Sequence[Record], part: Literal["val", "test"] = "test") -> tuple[Array, Array] | None:
    """Truth (N,) and probability (N,) of all predictions of these records: of the predicted class if multi-class, else of every label.

    None if the scores are not probabilities."""
    truths, probabilities = [], []
    for record in records:
        y, s, _ = record.part(part)
        if s.min() < -1e-6 or s.max() > 1 + 1e-6:
            return None
        truth, probability = confidence(y, s) if record.meta.kind == "multiclass" else (y.reshape(-1), s.reshape(-1))
        truths.append(truth)
        probabilities.append(probability)
    return np.concatenate(truths), np.concatenate(probabilities)


def reliability_bins(truth: Array, probability: Array) -> dict[str, Array]:
    """Ten bins with equal numbers of predictions; empty bins are omitted."""
    return reliability(truth, probability, 10, "equal_mass")


def pooled_risk_coverage(records: Sequence[Record]) -> RiskCoverage | None:
    """Coverage and risk (N,) of all predictions of these records, most confident first; None if the scores are not probabilities.

    The confidence of a multi-class prediction is its largest probability; of any other, its distance from the validation threshold."""
    errors, confidences = [], []
    for record in records:
        y, s, _ = record.part("test")
        if not are_probabilities(s):
            return None
        choice = choose_on_validation(*record.part("val")[:2], record.meta.kind)
        correct, margin = confidence(y, s) if record.meta.kind == "multiclass" else threshold_margins(y, s, choice.threshold)
        errors.append(1 - correct[~np.isnan(correct)])
        confidences.append(margin[~np.isnan(correct)])
    return risk_coverage(np.concatenate(errors), np.concatenate(confidences))
