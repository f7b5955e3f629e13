"""ROC, precision-recall, reliability and risk-coverage curves of a row, with bands from resampled patients.

For several labels, folds or draws, the mean of their curves is drawn, as the AUROC is the mean of their areas.

Shapes: N test images, C target columns, B resamples, G grid points.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from encoders.runtime.arrays import Array, FloatArray
from transfer.metrics import choose_on_validation, macro, reliability, risk_coverage
from transfer.metrics.calibration import RiskCoverage, confidence
from transfer.metrics.panel import are_probabilities, threshold_margins
from transfer.records.record import Record
from transfer.stats import draw_resamples
from transfer.stats.bootstrap import percentile_interval

CURVE_GRID = np.linspace(0, 1, 101)
BAND_RESAMPLES = 300  # enough for a shaded band; the intervals of the tables have their own number
CurveKind = Literal["roc", "pr"]  # sensitivity over false positive rate; precision over recall


class BandedCurve(NamedTuple):
    """y over `CURVE_GRID`, and its pointwise 95 % band, (G,) each."""

    y: Array
    low: Array
    high: Array


def resampled_curve(records: Sequence[Record], kind: CurveKind, n: int = BAND_RESAMPLES) -> BandedCurve:
    """The mean curve of the records, with its band."""
    full, drawn = np.zeros((1, len(CURVE_GRID))), np.zeros((n, len(CURVE_GRID)))
    for record in records:
        y, s, patient = record.part("test")
        full += mean_curve(y, s, np.ones((len(y), 1), np.float32), kind) / len(records)
        at = 0
        for weight in draw_resamples(patient, n, seed=record.identity.fold):  # draws of one fold share their resamples
            drawn[at : at + weight.shape[1]] += mean_curve(y, s, weight, kind) / len(records)
            at += weight.shape[1]
    ends = np.array([percentile_interval(drawn[:, g], 0.95) for g in range(len(CURVE_GRID))])
    return BandedCurve(full[0], ends[:, 0], ends[:, 1])


def mean_curve(y: Array, s: Array, weight: Array, kind: CurveKind) -> Array:
    """(B, G) mean over the labels with both classes. y, s: (N, C).  weight: (N, B)."""
    curves = np.stack([label_curve(y[:, c], s[:, c], weight, kind) for c in range(y.shape[1])], axis=-1)  # (B, G, C)
    return np.asarray(macro(curves)[0])


def label_curve(y: Array, s: Array, weight: Array, kind: CurveKind) -> Array:
    """(B, G) curves of one label; NaN where a resample has only one class. y, s: (N,).  weight: (N, B)."""
    rows = np.flatnonzero(~np.isnan(y))
    rows = rows[np.argsort(-s[rows], kind="stable")]
    score, positive, w = s[rows], y[rows] > 0.5, weight[rows].astype(np.float64)
    ends = np.flatnonzero(np.append(score[1:] != score[:-1], True)) if len(rows) else np.empty(0, int)  # equal scores change together
    hit = np.cumsum(np.where(positive[:, None], w, 0), axis=0)[ends]  # (thresholds, B)
    false = np.cumsum(np.where(positive[:, None], 0, w), axis=0)[ends]
    out = np.full((weight.shape[1], len(CURVE_GRID)), np.nan)
    for b in range(weight.shape[1]):
        if len(ends) and hit[-1, b] > 0 and false[-1, b] > 0:
            out[b] = _roc_on_grid(hit[:, b], false[:, b]) if kind == "roc" else _pr_on_grid(hit[:, b], false[:, b])
    return out


def _roc_on_grid(hit: Array, false: Array) -> FloatArray:
    return np.asarray(np.interp(CURVE_GRID, np.append(0.0, false / false[-1]), np.append(0.0, hit / hit[-1])))


def _pr_on_grid(hit: Array, false: Array) -> Array:
    """The precision at the first threshold whose recall reaches each grid point: the step function whose area is the average precision."""
    predicted = hit + false
    precision = np.divide(hit, predicted, out=np.ones_like(hit), where=predicted > 0)
    first = np.searchsorted(hit / hit[-1], CURVE_GRID - 1e-12)
    # At thresholds that only rows with weight 0 reach, no row is predicted positive; the curve begins at the first other threshold.
    begin = int(np.argmax(predicted > 0))
    values: Array = precision[np.clip(first, begin, len(precision) - 1)]
    return values


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
