"""Calibration slope and intercepts of the labels of a table row, with intervals over test patients.

Folds and draws are averaged: errors of folds, which have different patients, add in squares; errors of draws on one test part are averaged.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from encoders.runtime.arrays import Array
from transfer.metrics.calibration import confidence
from transfer.metrics.panel import are_probabilities
from transfer.metrics.recalibration import Coefficient, Recalibration, fit_recalibration
from transfer.records.cached_results import cached_result
from transfer.records.record import Record
from transfer.stats import Interval
from transfer.stats.patients import encode_patients

METHOD = "logistic recalibration, patient-clustered sandwich variance, Student's t"


@dataclass(frozen=True)
class LabelCalibration:
    """Calibration of one label; all NaN where it is not defined.

    slope, intercept: of the logistic recalibration.  in_the_large: its intercept with the slope fixed at 1.
    at_bounds: number of probabilities of 0 or 1, which are moved to 1e-6 and 1 - 1e-6."""

    label: str
    slope: Interval
    intercept: Interval
    in_the_large: Interval
    at_bounds: int


def row_calibration(records: Sequence[Record]) -> list[LabelCalibration]:
    """The calibration of each label, of a multi-class task that of the predicted class; [] where scores are not probabilities."""
    return cached_result("calibration", records, (), list[LabelCalibration], lambda: _calibrate(records))


def _calibrate(records: Sequence[Record]) -> list[LabelCalibration]:
    if not all(are_probabilities(r.arrays["test_scores"]) for r in records):
        return []
    meta = records[0].meta
    labels = ["predicted class"] if meta.kind == "multiclass" else meta.classes
    codes = [encode_patients(r.arrays["test_patient"])[0] for r in records]
    return [
        _label_calibration(name, [(r.identity.fold, *_label_rows(r, c), code) for r, code in zip(records, codes, strict=True)])
        for c, name in enumerate(labels)
    ]


def _label_rows(record: Record, c: int) -> tuple[Array, Array]:
    """Truth and probability (M,) of one label, or of the predicted class."""
    y, s, _ = record.part("test")
    truth, p = confidence(y, s) if record.meta.kind == "multiclass" else (y[:, c], s[:, c])
    return truth, np.clip(p, 0, 1)


def _label_calibration(label: str, parts: Sequence[tuple[int, Array, Array, Array]]) -> LabelCalibration:
    """parts: fold, truth, probability and patient of each record."""
    fits = [(fold, fit_recalibration(truth, p, patient)) for fold, truth, p, patient in parts]
    fewest = {fold: min(len(np.unique(patient[side])) for side in (truth > 0.5, truth <= 0.5)) for fold, truth, _, patient in parts}
    freedom = sum(max(n - 1, 0) for n in fewest.values())
    slope, intercept, large = (_mean_interval([(fold, _pick(fit, i)) for fold, fit in fits], freedom) for i in range(3))
    return LabelCalibration(label, slope, intercept, large, sum(fit.at_bounds for _, fit in fits))


def _pick(fit: Recalibration, i: int) -> Coefficient:
    return (fit.slope, fit.intercept, fit.in_the_large)[i]


def _mean_interval(estimates: Sequence[tuple[int, Coefficient]], freedom: int) -> Interval:
    """The mean over records with its interval. estimates: fold and estimate of each record.  freedom: of Student's t."""
    from scipy.stats import t

    folds: dict[int, list[Coefficient]] = {}
    for fold, estimate in estimates:
        folds.setdefault(fold, []).append(estimate)
    means = [Coefficient(*np.mean(same, axis=0).tolist()) for same in folds.values()]
    value = float(np.mean([m.value for m in means]))
    error = math.sqrt(sum(m.error**2 for m in means)) / len(means)
    margin = float(t.ppf(0.975, freedom)) * error if freedom > 0 else math.nan
    return Interval(value, value - margin, value + margin, METHOD)
