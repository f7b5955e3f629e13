"""Decision curves of a row: net benefit over the threshold, of each label and in the mean, with bands from resampled test patients.

Shapes: C labels, T thresholds, B resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from encoders.runtime.arrays import Array, BoolArray, FloatArray, IntArray
from encoders.runtime.escape import lines_to_csv
from transfer.metrics import macro
from transfer.metrics.net_benefit import net_benefit_of_counts, treat_all
from transfer.metrics.panel import are_probabilities
from transfer.records.cached_results import cached_result
from transfer.records.record import Record
from transfer.stats.bootstrap import percentile_band
from transfer.stats.patient_draws import draw_patients
from transfer.tables.render import list_allowed_leaks
from transfer.tables.rows import Row, Section

CSV_THRESHOLDS = np.round(np.linspace(0.01, 0.99, 99), 2)
CURVE_RESAMPLES = 300


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit of one label, or of the mean over labels (label ""), at thresholds (T,); means over folds and draws.

    low, high: pointwise 95 % band over test patients.  treat_all: net benefit of treating everybody."""

    label: str
    thresholds: Array
    benefit: Array
    low: Array
    high: Array
    treat_all: Array
    prevalence: float


def row_decision_curves(
    records: Sequence[Record], thresholds: Array, prevalence: float | None = None, resamples: int = CURVE_RESAMPLES
) -> list[DecisionCurve]:
    """The curve of the mean over labels, then of each label; [] for a multi-class task and for scores that are not probabilities.

    prevalence: of the population to decide on, for all labels; None: that of the test part."""
    settings = thresholds, prevalence, resamples
    return cached_result("decision curves", records, settings, list[DecisionCurve], lambda: _draw_curves(records, *settings))


def _draw_curves(records: Sequence[Record], thresholds: Array, prevalence: float | None, resamples: int) -> list[DecisionCurve]:
    if records[0].meta.kind == "multiclass" or not all(are_probabilities(r.arrays["test_scores"]) for r in records):
        return []
    each = [_resampled_benefit(record, thresholds, prevalence, resamples) for record in records]
    benefit = np.mean(each, axis=0)  # (C, 1 + B, T)
    shares = np.mean([_positive_shares(r) for r in records], axis=0) if prevalence is None else np.full(len(benefit), prevalence)
    everybody = np.stack([treat_all(share, thresholds) for share in shares])  # (C, T)
    # As for the other metrics, a label that a resample lacks is left out of that resample's deviation, not of its mean.
    by_label = np.moveaxis(benefit, 0, -1)  # (1 + B, T, C)
    mean = np.asarray(macro(by_label[0])[0]) + np.asarray(macro(by_label - by_label[0])[0])  # (1 + B, T)
    defined = ~np.isnan(benefit[:, 0, 0])
    overall = shares[defined].mean() if defined.any() else float("nan")
    curves = [_band("", thresholds, mean, treat_all(float(overall), thresholds), float(overall))]
    labels = zip(records[0].meta.classes, benefit, everybody, shares.tolist(), strict=True)
    return curves + [_band(name, thresholds, values, to_all, share) for name, values, to_all, share in labels]


def _resampled_benefit(record: Record, thresholds: Array, prevalence: float | None, resamples: int) -> FloatArray:
    """(C, 1 + B, T) net benefit of each label: of the test part, then of each resample. Draws of one fold share their resamples."""
    y, s, patient = record.part("test")
    code, drawn = draw_patients(patient, resamples, seed=record.identity.fold)
    weight = drawn.astype(np.float32 if len(y) * int(drawn.max()) < 2**24 else np.float64)  # sums of whole numbers stay exact
    labels = []
    for c in range(y.shape[1]):
        hit, false = (sum_treated(side, s[:, c], thresholds, code, weight) for side in (y[:, c] > 0.5, y[:, c] <= 0.5))  # NaN is neither
        labels.append(net_benefit_of_counts(hit[:, 1:], false[:, 1:], hit[:, :1], false[:, :1], thresholds, prevalence))
    return np.stack(labels)


def sum_treated(side: BoolArray, p: Array, thresholds: Array, code: IntArray, drawn: Array) -> FloatArray:
    """(B, 1 + T) the drawn images of one class: all, then those with p >= t. side, p, code: (M,).  drawn: (U, B) whole numbers."""
    from scipy.sparse import csr_array

    passed = np.searchsorted(thresholds, p[side], side="right")  # how many thresholds treat the image, 0..T
    cells = csr_array((np.ones(len(passed), drawn.dtype), (passed, code[side])), shape=(len(thresholds) + 1, len(drawn)))
    at_each = np.asarray(cells @ drawn, dtype=np.float64)  # (1 + T, B)
    return np.cumsum(at_each[::-1], axis=0)[::-1].T


def _positive_shares(record: Record) -> FloatArray:
    """(C,) the share of positives among the known labels of the test part."""
    y = record.arrays["test_y"]
    known = np.maximum((~np.isnan(y)).sum(axis=0), 1)
    return np.asarray((y > 0.5).sum(axis=0) / known)


def _band(label: str, thresholds: Array, values: Array, everybody: Array, prevalence: float) -> DecisionCurve:
    return DecisionCurve(label, thresholds, values[0], *percentile_band(values[1:], 0.95), everybody, prevalence)


def decision_curves_to_csv(rows: Sequence[tuple[Section, Row]], prevalence: float | None = None) -> str:
    """One line per row, label and threshold, numbers with six decimals; the label of the mean over several labels is empty."""
    lines: list[dict[str, object]] = []
    for section, row in rows:
        scored_by = row.records[0].meta.scored_by or "image"
        base = {
            "scored_by": scored_by,
            "task": section.task,
            "protocol": section.protocol,
            "protocol_hash": section.protocol_hash,
            "encoder": row.encoder,
        }
        curves = row_decision_curves(row.records, CSV_THRESHOLDS, prevalence)
        for curve in curves[1:] if len(curves) == 2 else curves:  # one label is its own mean
            numbers = zip(curve.thresholds, curve.benefit, curve.low, curve.high, curve.treat_all, strict=True)
            for t, *values in numbers:
                cells = zip(("net_benefit", "net_benefit_low", "net_benefit_high", "treat_all"), values, strict=True)
                line = {**base, "fraction": f"{row.fraction:g}", "label": curve.label, "threshold": f"{t:.2f}"}
                line |= {name: f"{value:.6f}" for name, value in cells}
                lines.append({**line, "prevalence": f"{curve.prevalence:.6f}", "leakage": "; ".join(list_allowed_leaks(row))})
    return lines_to_csv(lines)
