"""Simulated test sets with several images per patient, and scores whose true metrics are known.

The score of an image is noise of the patient (80 % of the variance) plus noise of the image, plus a shift for positives; all images of a
patient have one label. Both noises are normal, so the true area is Phi(shift / sqrt(2)), apart from pairs within a patient, of which there
are none. Two encoders share a part of their noise.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Array = NDArray[np.float64]
PATIENT_SHARE = 0.8  # of the variance of a score: the correlation of two images of a patient


class Cell(NamedTuple):
    """A kind of test set. several: 1 to 20 images a patient instead of one."""

    positives: int
    prevalence: float
    several: bool


class TestSet(NamedTuple):
    """patients: number.  code: (N,) patient of every image.  y: (N,) labels."""

    patients: int
    code: NDArray[np.int64]
    y: Array


def shift_for(area: float) -> float:
    """The shift of the positives that gives this area."""
    return float(np.sqrt(2) * norm.ppf(area))


def draw_test_set(cell: Cell, rng: np.random.Generator) -> TestSet:
    patients = round(cell.positives / cell.prevalence)
    images = rng.integers(1, 21, patients) if cell.several else np.ones(patients, dtype=int)
    code = np.repeat(np.arange(patients), images)
    return TestSet(patients, code, (code < cell.positives).astype(float))


def draw_noise(t: TestSet, rng: np.random.Generator) -> Array:
    """(N,) noise of variance 1."""
    of_patient, of_image = rng.normal(size=t.patients)[t.code], rng.normal(size=len(t.code))
    return np.asarray(np.sqrt(PATIENT_SHARE) * of_patient + np.sqrt(1 - PATIENT_SHARE) * of_image)


def draw_pair(t: TestSet, shared: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """The noise of two encoders."""
    common = np.sqrt(shared) * draw_noise(t, rng)
    return common + np.sqrt(1 - shared) * draw_noise(t, rng), common + np.sqrt(1 - shared) * draw_noise(t, rng)


def missed_positives(t: TestSet, area: float, rng: np.random.Generator) -> Array:
    """(N,) shifts that give this area when a share 1 - area of the positive patients look like negatives."""
    share = 1 - area
    shift = np.sqrt(2) * norm.ppf((area - share / 2) / (1 - share))
    return np.asarray(t.y * shift * (rng.random(t.patients) >= share)[t.code])


def true_average_precision(area: float, prevalence: float) -> float:
    """The average precision of infinitely many images."""
    threshold, shift = np.linspace(-8, 12, 100_001), shift_for(area)
    hit, false = prevalence * norm.sf(threshold - shift), (1 - prevalence) * norm.sf(threshold)
    return float(np.trapezoid(hit / (hit + false) * norm.pdf(threshold - shift), threshold))


def true_balanced_accuracy(area: float, prevalence: float) -> float:
    return float(norm.cdf(shift_for(area) / 2))
