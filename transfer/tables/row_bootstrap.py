"""The mean over the records of a row of rates without closed form, with their bootstrap intervals over test patients.

Shapes: M test images, J rates, U patients, B resamples.
"""

from collections.abc import Callable, Sequence

import numpy as np

from encoders.runtime.arrays import Array, FloatArray
from transfer.records.record import Record
from transfer.stats import Interval
from transfer.stats.bootstrap import percentile_interval
from transfer.stats.interval import bound_perfect_interval
from transfer.stats.patient_draws import draw_patients, sum_drawn
from transfer.stats.patients import few_patients_note
from transfer.tables.row_estimates import smaller_class_patients, test_labels

TABLE_RESAMPLES = 1000
# Of a record: (M, J) the images that each rate is a share of, and (M, J) those among them that are right.
CountedImages = tuple[Array, Array]


def bootstrap_rates(records: Sequence[Record], count: Callable[[Record], CountedImages], resamples: int) -> list[Interval]:
    """The J rates, means over records, with one interval over test patients each. `count` may depend on the record (its thresholds)."""
    values = np.mean([_resample_rates(record, *count(record), resamples) for record in records], axis=0)  # (1 + B, J)
    method, note, fewest = (
        f"patient bootstrap, {resamples} resamples",
        few_patients_note(*test_labels(records)),
        smaller_class_patients(records),
    )
    ends = [
        bound_perfect_interval(full, *percentile_interval(draws, 0.95), fewest, 0.95)
        for full, draws in zip(values[0].tolist(), values[1:].T, strict=True)
    ]
    return [Interval(full, *pair, method, 0.95, note) for full, pair in zip(values[0].tolist(), ends, strict=True)]


def _resample_rates(record: Record, counted: Array, right: Array, resamples: int) -> FloatArray:
    """(1 + B, J) the rates on a record's test part, then on resamples of its patients; draws of one fold share their resamples."""
    code, drawn = draw_patients(record.arrays["test_patient"], resamples, seed=record.identity.fold)
    columns = np.concatenate([right & counted, counted], axis=1)
    table = np.stack([np.bincount(code[column], minlength=len(drawn)) for column in columns.T], axis=1)  # (U, 2J)
    hits, total = np.split(sum_drawn(drawn, table), 2, axis=1)
    return np.asarray(np.divide(hits, total, out=np.full(total.shape, np.nan), where=total > 0))
