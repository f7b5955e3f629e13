"""ROC, precision-recall and reliability curves of a row, with bands from resampled patients; arrays in, arrays out.

A row of several labels, folds or draws has the mean of their curves, as its AUROC is the mean of their areas.

Shapes: N test images, C columns, B resamples, G points of a grid.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from encoders.runtime.arrays import Array
from transfer.metrics import choose_on_validation, macro, reliability, risk_coverage
from transfer.metrics.calibration import RiskCoverage, confidence
from transfer.metrics.panel import are_probabilities, threshold_margins
from transfer.records.record import Record
from transfer.stats import draw_resamples
from transfer.stats.bootstrap import percentile_interval

CURVE_GRID = np.linspace(0, 1, 101)
BAND_RESAMPLES = 300  # enough for a shaded band; the intervals in the tables have their own


class BandedCurve(NamedTuple):
    """y over `GRID`, and its pointwise 95 % band, each (G,)."""

    y: Array
    low: Array
    high: Array


def resampled_curve(records: Sequence[Record], kind: str, n: int = BAND_RESAMPLES) -> BandedCurve:
    """The mean curve of the records. kind: "roc" (sensitivity over false positive rate) or "pr" (precision over recall)."""
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


def mean_curve(y: Array, s: Array, weight: Array, kind: str) -> Array:
    """(B, G) mean over the labels that are defined."""
    one = np.stack([label_curve(y[:, c], s[:, c], weight, kind) for c in range(y.shape[1])], axis=-1)  # (B, G, C)
    return np.asarray(macro(one)[0])


def label_curve(y: Array, s: Array, weight: Array, kind: str) -> Array:
    """(B, G) of one label; NaN where a resample has one class only. y, s: (N,).  weight: (N, B)."""
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


def _roc_on_grid(hit: Array, false: Array) -> Array:
    return np.interp(CURVE_GRID, np.append(0.0, false / false[-1]), np.append(0.0, hit / hit[-1]))


def _pr_on_grid(hit: Array, false: Array) -> Array:
    """The precision at the first threshold whose recall reaches each point: the steps whose area is the average precision."""
    called = hit + false
    precision = np.divide(hit, called, out=np.ones_like(hit), where=called > 0)
    first = np.searchsorted(hit / hit[-1], CURVE_GRID - 1e-12)
    # A threshold that only a resample's absent rows reach calls nobody; the curve begins at the first that calls somebody.
    begin = int(np.argmax(called > 0))
    return precision[np.clip(first, begin, len(precision) - 1)]


def gather_probabilities(records: Sequence[Record], part: str = "test") -> tuple[Array, Array] | None:
    """Truth (N,) and probability (N,) of all answers of these records: of the chosen class in a multi-class task, else of every label.

    None where the scores are no probabilities."""
    truth, sure = [], []
    for record in records:
        y, s, _ = record.part(part)
        if s.min() < -1e-6 or s.max() > 1 + 1e-6:
            return None
        right, p = confidence(y, s) if record.meta.kind == "multiclass" else (y.reshape(-1), s.reshape(-1))
        truth.append(right)
        sure.append(p)
    return np.concatenate(truth), np.concatenate(sure)


def reliability_bins(truth: Array, sure: Array) -> dict[str, Array]:
    """Ten bins with equally many answers each; empty ones left out."""
    return reliability(truth, sure, 10, "equal_mass")


def pooled_risk_coverage(records: Sequence[Record]) -> RiskCoverage | None:
    """Coverage and risk (N,) of all answers of these records, the surest first; None where the scores are no probabilities.

    Sure is a multi-class answer by its largest probability, any other by its distance from the threshold that validation chose."""
    wrong, sure = [], []
    for record in records:
        y, s, _ = record.part("test")
        if not are_probabilities(s):
            return None
        by = choose_on_validation(*record.part("val")[:2], record.meta.kind)
        right, how = confidence(y, s) if record.meta.kind == "multiclass" else threshold_margins(y, s, by.threshold)
        wrong.append(1 - right[~np.isnan(right)])
        sure.append(how[~np.isnan(right)])
    return risk_coverage(np.concatenate(wrong), np.concatenate(sure))
