"""Calibration slope and intercepts of the labels of a table row, with intervals over test patients.

Folds and draws are averaged: errors of folds, which have different patients, add in squares; errors of draws on one test part are averaged.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from encoders.runtime.arrays import Array, IntArray
from transfer.metrics.panel import are_probabilities, calibrated_columns
from transfer.metrics.recalibration import Coefficient, Recalibration, fit_recalibration
from transfer.records.cached_results import cached_result
from transfer.records.record import Record
from transfer.stats import Interval
from transfer.stats.patients import count_codes, encode_patients

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
    fits = [record_recalibration(r) for r in records]
    truths = [calibrated_columns(*r.part("test")[:2], meta.kind)[0] for r in records]
    codes = [encode_patients(r.arrays["test_patient"]) for r in records]
    folds = [r.identity.fold for r in records]
    return [
        _label_calibration(
            name,
            [(fold, of_record[c]) for fold, of_record in zip(folds, fits, strict=True)],
            {fold: _fewest_patients(truth[:, c], *code) for fold, truth, code in zip(folds, truths, codes, strict=True)},
        )
        for c, name in enumerate(labels)
    ]


def record_recalibration(record: Record) -> list[Recalibration]:
    """The fit of each label on a record's test part, with errors over patients; of a multi-class task that of the predicted class."""

    def fit() -> list[Recalibration]:
        y, s, patient = record.part("test")
        truth, p = calibrated_columns(y, np.clip(s, 0, 1), record.meta.kind)
        code, _ = encode_patients(patient)
        return [fit_recalibration(truth[:, c], p[:, c], code) for c in range(truth.shape[1])]

    return cached_result("recalibration", [record], (), list[Recalibration], fit)


def _fewest_patients(truth: Array, code: IntArray, n: int) -> int:
    return min(count_codes(code[side], n) for side in (truth > 0.5, truth <= 0.5))


def _label_calibration(label: str, fits: Sequence[tuple[int, Recalibration]], fewest: Mapping[int, int]) -> LabelCalibration:
    """fits: fold and fit of each record.  fewest: patients in the smaller class of each fold."""
    freedom = sum(max(n - 1, 0) for n in fewest.values())
    slope, intercept, large = (_mean_interval([(fold, _pick(fit, i)) for fold, fit in fits], freedom) for i in range(3))
    return LabelCalibration(label, slope, intercept, large, sum(fit.at_bounds for _, fit in fits))


def _pick(fit: Recalibration, i: int) -> Coefficient:
    return (fit.slope, fit.intercept, fit.in_the_large)[i]


def _mean_interval(estimates: Sequence[tuple[int, Coefficient]], freedom: int) -> Interval:
    """The mean over records with its interval. estimates: fold and estimate of each record.  freedom: of Student's t."""
    from scipy.special import stdtrit

    folds: dict[int, list[Coefficient]] = {}
    for fold, estimate in estimates:
        folds.setdefault(fold, []).append(estimate)
    means = [Coefficient(*np.mean(same, axis=0).tolist()) for same in folds.values()]
    value = float(np.mean([m.value for m in means]))
    error = math.sqrt(sum(m.error**2 for m in means)) / len(means)
    margin = float(stdtrit(freedom, 0.975)) * error if freedom > 0 else math.nan
    return Interval(value, value - margin, value + margin, METHOD)
