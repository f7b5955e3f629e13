"""Calibration slope and intercept of one label: logistic regression of the outcome on the logit of its predicted probability, no penalty.

Of perfect probabilities the slope is 1 and both intercepts are 0. A slope below 1 means that probabilities are too extreme (overfitting),
above 1 that they are too moderate. Calibration in the large is the intercept with the slope fixed at 1; it is above 0 where probabilities
are too low on average.

Sources: Cox 1958 (Biometrika 45:562); Van Calster et al. 2019 (BMC Medicine 17:230). Variances: Liang and Zeger 1986 (Biometrika 73:13),
with the patients as clusters.

Shapes: N rows, K coefficients, U patients.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from encoders.runtime.arrays import Array, FloatArray, IntArray

BOUND = 1e-6  # probabilities are moved to at least this far from 0 and 1: the logit of a vote of 0 of k neighbours would be infinite
MAX_STEPS = 100  # of Newton's method with halving; it needs about 6


class Coefficient(NamedTuple):
    """A coefficient with its standard error; both NaN where there is none."""

    value: float
    error: float


class Recalibration(NamedTuple):
    """slope, intercept: of the regression with both; not defined if the probabilities separate the classes, or are all equal.

    in_the_large: the intercept with slope 1.  at_bounds: rows whose probability was moved away from 0 or 1."""

    slope: Coefficient
    intercept: Coefficient
    in_the_large: Coefficient
    at_bounds: int


UNDEFINED = Coefficient(float("nan"), float("nan"))


def fit_recalibration(y: Array, p: Array, patient: Array | None = None, start: tuple[float, float] | None = None) -> Recalibration:
    """Slope and intercepts of one label, with standard errors over patients. y: (N,) in {0, 1}, NaN = unknown.  p: (N,) in [0, 1].

    patient: (N,) of any type; None: each row is a patient.  start: intercept and slope close to the result, which saves steps.
    All is undefined without both classes."""
    known = ~np.isnan(y)
    truth, probability = y[known].astype(np.float64), np.asarray(p, dtype=np.float64)[known]
    at_bounds = int(((probability < BOUND) | (probability > 1 - BOUND)).sum())
    if not len(truth) or truth.min() == truth.max():
        return Recalibration(UNDEFINED, UNDEFINED, UNDEFINED, at_bounds)
    code = np.arange(len(truth)) if patient is None else np.unique(np.asarray(patient)[known], return_inverse=True)[1].reshape(-1)
    x = logit(probability)
    ones = np.ones((len(x), 1))
    (large,) = fit_logistic(truth, ones, x, code)
    if not classes_overlap(truth, x):
        return Recalibration(UNDEFINED, UNDEFINED, large, at_bounds)
    # Of probabilities that are roughly right, the result is close to 0 and 1.
    intercept, slope = fit_logistic(truth, np.column_stack([ones, x]), np.zeros(len(x)), code, start or (0.0, 1.0))
    return Recalibration(slope, intercept, large, at_bounds)


def logit(p: Array) -> FloatArray:
    """ln(p / (1 - p)), with p moved to at least `BOUND` from 0 and 1."""
    inside = np.clip(np.asarray(p, dtype=np.float64), BOUND, 1 - BOUND)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def classes_overlap(truth: Array, x: Array) -> bool:
    """Whether a slope of finite likelihood exists: neither class lies wholly at or beyond the other (Albert and Anderson 1984)."""
    negative, positive = x[truth < 0.5], x[truth > 0.5]
    return bool(negative.max() > positive.min() and positive.max() > negative.min())


def fit_logistic(
    truth: FloatArray, columns: FloatArray, offset: FloatArray, code: IntArray, start: Sequence[float] | None = None
) -> list[Coefficient]:
    """The K coefficients of maximum likelihood. truth, offset: (N,).  columns: (N, K).  code: (N,) patient of each row, from 0.

    start: of the K coefficients, used if it is better than zeros."""
    beta = np.zeros(columns.shape[1])
    loss, mean = _evaluate(truth, offset)
    if start is not None:
        closer, its_mean = _evaluate(truth, columns @ np.array(start) + offset)
        if closer < loss:  # else Newton's method could start where all probabilities are 0 or 1, and stay there
            beta, loss, mean = np.array(start, dtype=np.float64), closer, its_mean
    for _ in range(MAX_STEPS):
        information = (columns.T * (mean * (1 - mean))) @ columns  # (K, K)
        step = np.linalg.solve(information, columns.T @ (truth - mean))  # (K,)
        new, mean = _evaluate(truth, columns @ (beta + step) + offset)
        while not new <= loss + 1e-9 * abs(loss) and np.abs(step).max() > 1e-10:  # Newton's step can overshoot; the loss is convex
            step = step / 2
            new, mean = _evaluate(truth, columns @ (beta + step) + offset)
        beta, loss = beta + step, new
        if np.abs(step).max() < 1e-10:
            break
    errors = _clustered_errors(truth, columns, mean, code)
    return [Coefficient(float(b), float(e)) for b, e in zip(beta, errors, strict=True)]


def _clustered_errors(truth: FloatArray, columns: FloatArray, mean: FloatArray, code: IntArray) -> FloatArray:
    """(K,) standard errors: the sandwich of the information and the scores summed by patient, times U / (U - 1); NaN for one patient."""
    patients = int(code.max()) + 1
    if patients < 2:
        return np.full(columns.shape[1], np.nan)
    rows = columns * (truth - mean)[:, None]
    scores = np.stack([np.bincount(code, weights=column, minlength=patients) for column in rows.T])  # (K, U)
    bread = np.linalg.inv((columns.T * (mean * (1 - mean))) @ columns)
    variance = bread @ (scores @ scores.T) @ bread * patients / (patients - 1)
    return np.asarray(np.sqrt(np.diag(variance)))


def _evaluate(truth: FloatArray, z: FloatArray) -> tuple[float, FloatArray]:
    """Negative log-likelihood of all rows (nats), and (N,) probabilities, at the logits z (N,)."""
    small = np.exp(-np.abs(z))
    loss = np.log1p(small) + np.maximum(z, 0.0) - truth * z
    return float(loss.sum()), np.where(z >= 0, 1.0, small) / (1.0 + small)
