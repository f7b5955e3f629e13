"""Means over images with an interval over patients.

Shapes: N images.
"""

from collections.abc import Sequence

import numpy as np

from encoders.runtime.arrays import Array, FloatArray
from transfer.stats.bootstrap import draw_resamples, percentile_interval
from transfer.stats.interval import Interval, bound_perfect_interval

RESAMPLES, LEVEL = 1000, 0.95


def mean_over_patients(values: FloatArray, patient: Array) -> Interval:
    """The mean of values (N,) with the percentile interval over resamples of patients.  patient: (N,) a name for each image."""
    drawn = np.concatenate(
        [weight.astype(np.float64).T @ np.stack([values, np.ones(len(values))], axis=1) for weight in draw_resamples(patient, RESAMPLES)]
    )
    people = len(set(patient.tolist()))
    low, high = percentile_interval(drawn[:, 0] / drawn[:, 1], LEVEL) if people > 1 else (float("nan"), float("nan"))
    mean = float(values.mean())
    low, high = bound_perfect_interval(mean, low, high, people, LEVEL)
    return Interval(mean, low, high, f"patient bootstrap, {RESAMPLES} resamples", LEVEL)


def name_people(patient: Sequence[str], keys: Sequence[str]) -> Array:
    """(N,) the patient of each image; an image whose patient is not known counts as one of its own."""
    return np.array([person or f"image {key}" for person, key in zip(patient, keys, strict=True)])
