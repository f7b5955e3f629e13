"""The mean over the records of a row of a metric without closed form, with its bootstrap interval over test patients.

Shapes: C columns of the metric, B resamples.
"""

from collections.abc import Callable

import numpy as np

from encoders.runtime.arrays import FloatArray
from transfer.records.record import Record
from transfer.stats import Interval, bootstrap_values
from transfer.stats.bootstrap import Metric, percentile_interval
from transfer.stats.interval import bound_perfect_interval
from transfer.stats.patients import few_patients_note
from transfer.tables.row_estimates import smaller_class_patients, test_labels

TABLE_RESAMPLES = 1000


def bootstrap_intervals(records: list[Record], metric: Callable[[Record], Metric], resamples: int) -> list[Interval]:
    """The mean over records of a metric, one interval over test patients per column. `metric` may depend on the record (its threshold)."""
    return _mean_intervals(records, [_resample_metric(record, metric(record), resamples) for record in records], resamples)


def _mean_intervals(records: list[Record], per_record: list[tuple[FloatArray, FloatArray]], resamples: int) -> list[Interval]:
    """The C intervals of the mean over records. per_record: values (C,) and resampled values (B, C)."""
    full = np.mean([value for value, _ in per_record], axis=0)
    total = sum(draws / len(records) for _, draws in per_record)
    method, note, fewest = (
        f"patient bootstrap, {resamples} resamples",
        few_patients_note(*test_labels(records)),
        smaller_class_patients(records),
    )
    ends = [
        bound_perfect_interval(value, *percentile_interval(draws, 0.95), fewest, 0.95)
        for value, draws in zip(full.tolist(), np.transpose(total), strict=True)
    ]
    return [Interval(value, *pair, method, 0.95, note) for value, pair in zip(full.tolist(), ends, strict=True)]


def _resample_metric(record: Record, metric: Metric, resamples: int) -> tuple[FloatArray, FloatArray]:
    """The metric (C,) on a record's test part, and (B, C) on resamples of its patients; draws of one fold share their resamples."""
    y, s, patient = record.part("test")
    full = np.asarray(metric(y, s), dtype=np.float64).reshape(-1)
    return full, bootstrap_values(metric, y, s, patient, resamples, seed=record.identity.fold)
