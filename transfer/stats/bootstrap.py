"""Bootstrap over patients with all resamples at once: a resample is a weight per row, and a metric takes many weightings together.

Shapes: N rows, G patients, C labels, B resamples.
"""

from collections.abc import Iterator
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import Array, FloatArray, IntArray
from encoders.runtime.random import Purpose, generator
from transfer.metrics import macro
from transfer.stats.interval import Interval, bound_perfect_interval
from transfer.stats.patients import count_fewest_patients, encode_patients, few_patients_note, to_columns

RESAMPLE_CHUNK = 256  # resamples at a time: (N, 256) float32 is 26 MB at 25,596 rows


class Metric(Protocol):
    """A metric of `transfer.metrics`: (C,), or (B, C) for B weightings (N, B)."""

    def __call__(self, y: Array, s: Array, /, *, weight: Array | None = None) -> Array: ...


def draw_resamples(patient: Array, n: int, seed: int = 0) -> Iterator[NDArray[np.float32]]:
    """Yields weightings (N, B) in chunks: how often the patient of each row is drawn when G patients are drawn with replacement."""
    code, size = encode_patients(patient)
    for counts in draw_counts(size, n, seed):
        yield counts.astype(np.float32)[code]


def draw_counts(size: int, n: int, seed: int = 0) -> Iterator[IntArray]:
    """Yields (U, B) in chunks, `n` columns in total: how often each of `size` patients is drawn with replacement."""
    draw = generator(seed, Purpose.BOOTSTRAP)
    for start in range(0, n, RESAMPLE_CHUNK):
        counts = [np.bincount(draw.integers(0, size, size), minlength=size) for _ in range(min(RESAMPLE_CHUNK, n - start))]
        yield np.stack(counts, axis=1)


def bootstrap_values(metric: Metric, y: Array, scores: Array, patient: Array, n: int = 1000, seed: int = 0) -> FloatArray:
    """(B, C) values of the metric per resample and label; NaN where a resample lacks a class."""
    y, scores = to_columns(y), to_columns(scores)
    return np.concatenate([np.asarray(metric(y, scores, weight=w)).reshape(w.shape[1], -1) for w in draw_resamples(patient, n, seed)])


def cluster_bootstrap(
    metric: Metric, y: Array, scores: Array, patient: Array, n: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """The metric on the data (its mean over defined labels) with its percentile interval over resamples of patients."""
    y, scores = to_columns(y), to_columns(scores)
    full = np.asarray(metric(y, scores)).reshape(-1)
    values = mean_over_labels(bootstrap_values(metric, y, scores, patient, n, seed), full)
    low, high = bound_perfect_interval(macro(full)[0], *percentile_interval(values, level), count_fewest_patients(y, patient) or 0, level)
    return Interval(macro(full)[0], low, high, f"patient bootstrap, {n} resamples", level, few_patients_note(y, patient))


def mean_over_labels(values: Array, full: Array) -> FloatArray:
    """(B,) means over labels. values: (B, C).  full: (C,) on all data.

    A label that is not defined in a resample is excluded from the deviation of that resample from the full data, not from its mean: a mean
    over varying labels would vary with their difficulty."""
    means: FloatArray = macro(full)[0] + np.asarray(macro(values - full)[0])
    return means


def percentile_interval(values: Array, level: float) -> tuple[float, float]:
    """The central `level` of the defined values; NaN if fewer than half are defined."""
    known = values[~np.isnan(values)]
    if 2 * len(known) < len(values) or not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def percentile_band(values: Array, level: float) -> tuple[Array, Array]:
    """The `percentile_interval` of every column of `values` (B, G), as lower and upper ends (G,)."""
    if len(values) and not np.isnan(values).any():
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return low, high
    ends = np.array([percentile_interval(column, level) for column in values.T]).reshape(-1, 2)
    return ends[:, 0], ends[:, 1]


def bootstrap_difference(metric: Metric, y: Array, a: Array, b: Array, patient: Array, n: int, seed: int) -> tuple[float, FloatArray]:
    """The difference of the metric on the data, and (B,) its values in resamples that both sides share."""
    y, a, b = to_columns(y), to_columns(a), to_columns(b)
    values_of = partial(bootstrap_values, metric, y, patient=patient, n=n, seed=seed)
    full = np.asarray(metric(y, a)).reshape(-1) - np.asarray(metric(y, b)).reshape(-1)
    return macro(full)[0], mean_over_labels(values_of(scores=a) - values_of(scores=b), full)
