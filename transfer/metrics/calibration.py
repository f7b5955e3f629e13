"""Calibration of probabilities: calibration error, Brier score and its parts, log loss, temperature scaling, risk and coverage.

Binary and multi-label scores are one probability per label. For a multi-class task pass the one-hot columns: every column is then treated
as a one-against-rest probability; `confidence` gives the top-label view.

Shapes: N rows, C label columns, B weightings, Q bins.
"""

from typing import Literal, TypedDict

import numpy as np

from encoders.runtime.arrays import Array, FloatArray

LEAST_TEMPERATURE = float(np.exp(-4.0))  # where `fit_temperature` stops
TINY = 1e-15  # distance of probabilities from 0 and 1 in logarithms, as scikit-learn used; a certain and wrong answer costs 34.5 nats


class RiskCoverage(TypedDict):
    """coverage, risk: (N,), by falling confidence.  area: under the curve."""

    coverage: Array
    risk: Array
    area: float


def brier(y: Array, s: Array, weight: Array | None = None) -> FloatArray:
    """(C,) or (B, C) mean squared error of the probabilities."""
    return _mean_loss((np.asarray(s, dtype=np.float64) - y) ** 2, weight)


def log_loss(y: Array, s: Array, weight: Array | None = None) -> FloatArray:
    """(C,) or (B, C) mean negative log-likelihood (nats) of every label as a binary problem."""
    p = np.clip(np.asarray(s, dtype=np.float64), TINY, 1 - TINY)
    return _mean_loss(-np.where(np.asarray(y) > 0.5, np.log(p), np.log1p(-p)) + 0 * np.asarray(y), weight)


def cross_entropy(y: Array, s: Array) -> FloatArray:
    """(1,) mean negative log-probability (nats) of the true class of a multi-class task. y: (N, C) one-hot; rows with NaN are ignored."""
    known = ~np.isnan(y).any(axis=1)
    own = np.take_along_axis(np.asarray(s[known], dtype=np.float64), y[known].argmax(axis=1)[:, None], axis=1)
    return np.array([-np.log(np.clip(own, TINY, 1)).mean()]) if known.any() else np.array([np.nan])


def _mean_loss(loss: Array, weight: Array | None) -> FloatArray:
    """Mean of `loss` (N, C) over rows without NaN, weighted by the columns of `weight` (N, B)."""
    loss = loss[:, None] if loss.ndim == 1 else loss
    known = ~np.isnan(loss)
    w = np.ones((len(loss), 1)) if weight is None else np.asarray(weight, dtype=np.float64)
    mass = w.T @ known.astype(np.float64)
    mean: FloatArray = np.divide(w.T @ np.where(known, loss, 0.0), mass, out=np.full(mass.shape, np.nan), where=mass > 0)
    return np.asarray(mean[0]) if weight is None else mean


def reliability(y: Array, s: Array, bins: int = 15, mass: Literal["equal_width", "equal_mass"] = "equal_width") -> dict[str, Array]:
    """For one label and every non-empty bin: number of rows, mean probability, share of positives. y, s: (N,).

    equal_width: (0, 1/Q], (1/Q, 2/Q], ...; 0 belongs to the first.  equal_mass: equal numbers of rows per bin, ties in order."""
    known = ~np.isnan(y)
    y, s = y[known].astype(np.float64), s[known].astype(np.float64)
    if mass == "equal_width":
        which = np.clip(np.ceil(s * bins).astype(int) - 1, 0, bins - 1)
    else:
        which = np.empty(len(s), dtype=int)
        which[_stable_order(s)] = np.arange(len(s)) * bins // max(len(s), 1)
    count = np.bincount(which, minlength=bins)
    full = count > 0
    totals = [np.bincount(which, weights=values, minlength=bins)[full] for values in (s, y)]
    return {"count": count[full], "confidence": totals[0] / count[full], "frequency": totals[1] / count[full]}


def _stable_order(s: Array) -> Array:
    """The order of ascending values, equal ones as they come; a stable sort takes five times as long and is needed only for these."""
    order = np.argsort(s)
    ordered = s[order]
    return np.argsort(s, kind="stable") if (ordered[1:] == ordered[:-1]).any() else order


def ece(y: Array, s: Array, bins: int = 15, mass: Literal["equal_width", "equal_mass"] = "equal_width") -> FloatArray:
    """(C,) expected calibration error: mean over bins, weighted by their rows, of |share of positives - mean probability|."""
    return np.array([_label_ece(y[:, c], s[:, c], bins, mass) for c in range(y.shape[1])])


def _label_ece(y: Array, s: Array, bins: int, mass: Literal["equal_width", "equal_mass"]) -> float:
    table = reliability(y, s, bins, mass)
    gap = np.abs(table["confidence"] - table["frequency"])
    return float((table["count"] * gap).sum() / table["count"].sum()) if len(gap) else float("nan")


def brier_parts(y: Array, s: Array, bins: int = 15) -> dict[str, float]:
    """The Brier score of one label as reliability - resolution + uncertainty + within (Murphy 1973; the last term, due to binning, is from
    Stephenson et al. 2008). The sum is exact. y, s: (N,)."""
    known = ~np.isnan(y)
    table = reliability(y, s, bins)
    share, rate = table["count"] / table["count"].sum(), float(y[known].mean())
    parts = {
        "reliability": float((share * (table["confidence"] - table["frequency"]) ** 2).sum()),
        "resolution": float((share * (table["frequency"] - rate) ** 2).sum()),
        "uncertainty": rate * (1 - rate),
    }
    total = float(brier(y, s)[0])
    within = total - (parts["reliability"] - parts["resolution"] + parts["uncertainty"])
    return parts | {"within": within, "brier": total}


def confidence(y: Array, s: Array) -> tuple[Array, Array]:
    """The top-label view of a multi-class task: whether the argmax is correct (N,), 0 or 1, NaN = unknown; and its probability (N,)."""
    correct = (np.nan_to_num(y).argmax(axis=1) == s.argmax(axis=1)).astype(np.float64)
    return np.where(np.isnan(y).any(axis=1), np.nan, correct), s.max(axis=1)


def temper(s: Array, temperature: float, kind: str = "multilabel") -> FloatArray:
    """The probabilities with their logits divided by `temperature`. The order of the rows of a label (the classes of a row) stays."""
    p = np.clip(np.asarray(s, dtype=np.float64), TINY, 1 - TINY)
    if kind == "multiclass":
        logit = np.log(p) / temperature
        odds = np.exp(logit - logit.max(axis=1, keepdims=True))
        softmax: FloatArray = odds / odds.sum(axis=1, keepdims=True)
        return softmax
    logit = (np.log(p) - np.log1p(-p)) / temperature
    sigmoid: FloatArray = np.exp(-np.logaddexp(0.0, -logit))
    return sigmoid


def fit_temperature(y: Array, s: Array, kind: str = "multilabel") -> float:
    """The temperature with the lowest log loss on validation rows, one for all labels. Source: Guo et al. 2017, sec. 4.2.

    The loss is convex in 1 / T: the zero of its derivative is found for ln T in [-4, 4], to six decimal places."""
    from scipy.optimize import brentq

    p = np.clip(np.asarray(s, dtype=np.float64), TINY, 1 - TINY)
    if kind == "multiclass":
        rows = ~np.isnan(y).any(axis=1)
        logit, truth = np.log(p[rows]), np.nan_to_num(y[rows]).argmax(axis=1)
        own = np.take_along_axis(logit, truth[:, None], axis=1)

        def slope(log_t: float) -> float:
            z = logit * np.exp(-log_t)
            odds = np.exp(z - z.max(axis=1, keepdims=True))
            return float(((odds * logit).sum(axis=1) / odds.sum(axis=1)).mean() - own.mean())
    else:
        logit = np.log(p) - np.log1p(-p)
        known = ~np.isnan(y)
        share = known / np.maximum(known.sum(axis=0), 1)  # (N, C): the loss is a mean over the known rows of each label
        observed = float(np.where(known, share * logit * np.nan_to_num(y), 0.0).sum())
        weighted = share * logit

        def slope(log_t: float) -> float:
            return float((weighted / (1 + np.exp(-np.clip(logit * np.exp(-log_t), -700, 700)))).sum()) - observed

    # `slope` is the derivative by 1 / T: positive where the probabilities should be more moderate.
    if slope(-4.0) <= 0:
        return LEAST_TEMPERATURE
    return float(np.exp(4.0)) if slope(4.0) >= 0 else float(np.exp(brentq(slope, -4.0, 4.0, xtol=1e-6)))


def fit_known_temperature(y: Array, s: Array, kind: str = "multilabel") -> float | None:
    """The temperature of `fit_temperature`; None where the rows hold no error, so that any lower temperature fits them better."""
    temperature = fit_temperature(y, s, kind)
    return None if temperature <= LEAST_TEMPERATURE * (1 + 1e-6) else temperature


def risk_coverage(error: Array, confidence: Array) -> RiskCoverage:
    """Error rate among the most confident rows, at every coverage, and its area. error: (N,) 0 or 1.  confidence: (N,)."""
    order = np.argsort(-confidence)
    count = np.arange(1, len(order) + 1)
    # Rows of equal confidence are accepted or rejected together: each has the risk at the end of its group.
    last = np.searchsorted(-confidence[order], -confidence[order], side="right") - 1
    risk = (np.cumsum(error[order]) / count)[last]
    return {"coverage": count[last] / len(order), "risk": risk, "area": float(risk.mean())}
