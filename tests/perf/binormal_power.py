"""Power of a paired comparison of two AUROCs in a binormal model with several images a patient, in closed form.

The score of an image is a shift for positives plus normal noise of variance 1. Two images of a patient have noise of correlation `within`,
the noise of two encoders has correlation `between` (`between * within` for different images of a patient). All images of a patient have one
label. For a positive image i and a negative image j, an encoder is right if its noise difference exceeds a threshold; two such events have
the probability of a bivariate normal quadrant, so that the variance of the difference is a sum over how the pairs share images or patients.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import multivariate_normal, norm, qmc

from transfer.stats.pilot_rows import PilotRows

Array = NDArray[np.float64]


class Binormal(NamedTuple):
    """area, other: true AUROC of both encoders.  images: of each patient."""

    area: float
    other: float
    between: float = 0.5
    within: float = 0.8
    images: int = 1


def variance_of_difference(model: Binormal, positive: int, negative: int) -> float:
    """The exact variance of the estimated difference, with these numbers of patients."""
    m, areas = model.images, (model.area, model.other)
    kinds = [(1.0, m), (model.within, m * (m - 1)), (0.0, None)]  # correlation of two images, number of ordered pairs in a patient
    total = 0.0
    for e, f in ((0, 0), (1, 1), (0, 1), (1, 0)):
        shared = 1.0 if e == f else model.between
        for of_positives, p in kinds:
            for of_negatives, n in kinds:
                both = _quadrant(areas[e], areas[f], shared * (of_positives + of_negatives) / 2) - areas[e] * areas[f]
                count = (positive * p if p is not None else (positive * m) ** 2 - positive * m**2) * (
                    negative * n if n is not None else (negative * m) ** 2 - negative * m**2
                )
                total += (1 if e == f else -1) * count * both
    return total / (positive * m * negative * m) ** 2


def normal_power(model: Binormal, positive: int, negative: int, alpha: float = 0.05) -> float:
    """The probability that the difference is significant in its direction, by the normal approximation."""
    sd = np.sqrt(variance_of_difference(model, positive, negative))
    return float(norm.cdf(abs(model.area - model.other) / sd - norm.ppf(1 - alpha / 2)))


def required_by_theory(model: Binormal, prevalence: float, power: float = 0.8) -> int:
    """The smallest number of patients with this power, by the normal approximation."""
    low, high = 10, 10_000_000
    while high - low > 1:
        n = (low + high) // 2
        positive = round(n * prevalence)
        low, high = (low, n) if positive > 0 and normal_power(model, positive, n - positive) >= power else (n, high)
    return high


def draw_pilot(model: Binormal, positive: int, negative: int, rng: np.random.Generator, even: bool = False) -> PilotRows:
    """A pilot of the model. even: noise from Sobol points, so that a pilot of 2^k patients a class is close to the model."""
    m, size = model.images, 3 + 3 * model.images
    noise = np.concatenate(
        [norm.ppf(qmc.Sobol(size, rng=rng).random(n)) if even else rng.normal(size=(n, size)) for n in (positive, negative)]
    )
    of_patient, of_image = noise[:, None, :3], noise[:, 3:].reshape(-1, m, 3)
    common, own, others = np.moveaxis(np.sqrt(model.within) * of_patient + np.sqrt(1 - model.within) * of_image, -1, 0).reshape(3, -1)
    patient = np.repeat(np.arange(positive + negative), m)
    y = (patient < positive).astype(float)
    sides = zip((own, others), (model.area, model.other), strict=True)
    a, b = (np.sqrt(model.between) * common + np.sqrt(1 - model.between) * z + np.sqrt(2) * norm.ppf(x) * y for z, x in sides)
    return PilotRows(y[:, None], a[None, :, None], b[None, :, None], patient)


def _quadrant(one: float, other: float, correlation: float) -> float:
    """The probability of two standard normal numbers with this correlation to be below the quantiles of both areas."""
    if correlation >= 1:
        return min(one, other)
    cov = [[1.0, correlation], [correlation, 1.0]]
    return float(multivariate_normal.cdf(norm.ppf([one, other]), mean=[0.0, 0.0], cov=cov))
