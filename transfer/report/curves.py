"""Reliability and risk-coverage curves of a row, and its errors before and after temperature scaling.

ROC and precision-recall curves are in `curve_bands`.

Shapes: N predictions, Q bins.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from encoders.runtime.arrays import Array
from transfer.metrics import brier, ece, fit_temperature, reliability, risk_coverage, temper
from transfer.metrics.calibration import RiskCoverage, confidence
from transfer.metrics.panel import are_probabilities, threshold_margins
from transfer.records.cached_results import cached_result
from transfer.records.record import Record
from transfer.tables.row_estimates import youden_thresholds

MOST_POINTS = 200  # of a risk-coverage curve; more would not be visible


class RiskCurve(NamedTuple):
    """Points of a risk-coverage curve, at most MOST_POINTS, and the largest risk of all."""

    coverage: Array
    risk: Array
    top: float


class TemperedErrors(NamedTuple):
    """Calibration error and Brier score of the predictions of a row, before and after temperature scaling; the mean temperature."""

    ece: float
    ece_tempered: float
    brier: float
    brier_tempered: float
    temperature: float


def record_temperature(record: Record) -> float:
    """The temperature with the lowest log loss on the validation part of a record, whose scores are probabilities."""
    fit = lambda: fit_temperature(*record.part("val")[:2], kind=record.meta.kind)  # noqa: E731
    return cached_result("temperature", [record], (), float, fit)


def temper_record(record: Record) -> Record:
    """The record with tempered test scores."""
    tempered = temper(record.arrays["test_scores"], record_temperature(record), record.meta.kind)
    return Record(record.meta, {**record.arrays, "test_scores": tempered})


def row_reliability(records: Sequence[Record], tempered: bool) -> dict[str, Array] | None:
    """The reliability bins (Q,) of all predictions, after temperature scaling if `tempered`; None if the scores are not probabilities."""

    def bins() -> dict[str, Array] | None:
        predictions = gather_probabilities(records)
        if predictions is not None and tempered:
            predictions = gather_probabilities([temper_record(record) for record in records])
        return None if predictions is None else reliability_bins(*predictions)

    return cached_result("reliability", records, (tempered,), dict[str, np.ndarray] | None, bins)


def row_risk_curve(records: Sequence[Record]) -> RiskCurve | None:
    """The risk-coverage curve of all predictions, thinned for a chart; None if the scores are not probabilities."""

    def thin() -> RiskCurve | None:
        curve = pooled_risk_coverage(records)
        if curve is None:
            return None
        picked = np.unique(np.linspace(0, len(curve["risk"]) - 1, MOST_POINTS).round().astype(int))  # with the last
        return RiskCurve(curve["coverage"][picked], curve["risk"][picked], float(curve["risk"].max()))

    return cached_result("risk curve", records, (), RiskCurve | None, thin)


def row_tempered_errors(records: Sequence[Record]) -> TemperedErrors | None:
    """The errors of a row before and after temperature scaling; None if the scores are not probabilities."""

    def measure() -> TemperedErrors | None:
        before = gather_probabilities(records)
        if before is None:
            return None
        after = gather_probabilities([temper_record(record) for record in records])
        assert after is not None
        both = [(y[:, None], p[:, None]) for y, p in (before, after)]
        (error, error_tempered), (score, score_tempered) = (
            [float(of(y, p)[0]) for y, p in both] for of in (partial(ece, bins=10, mass="equal_mass"), brier)
        )
        temperature = float(np.mean([record_temperature(record) for record in records]))
        return TemperedErrors(error, error_tempered, score, score_tempered, temperature)

    return cached_result("tempered errors", records, (), TemperedErrors | None, measure)


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
        correct, margin = confidence(y, s) if record.meta.kind == "multiclass" else threshold_margins(y, s, youden_thresholds(record))
        errors.append(1 - correct[~np.isnan(correct)])
        confidences.append(margin[~np.isnan(correct)])
    return risk_coverage(np.concatenate(errors), np.concatenate(confidences))
