"""Are the probabilities right? Calibration error, Brier score and its parts, log loss, temperature, risk against coverage.

Binary and multi-label scores are one probability a label. For a multi-class task pass the one-hot columns: every column is then judged as
a one-against-rest probability; `confidence` gives the top-label view.

Shapes: N rows, C label columns, B weightings, Q bins.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import Array

TINY = 1e-15  # probabilities are kept this far from 0 and 1 in logarithms, as scikit-learn did; a sure and wrong answer costs 34.5 nats


def brier(y: Array, s: Array, weight: Array | None = None) -> NDArray[np.float64]:
    """(C,) or (B, C) mean squared error of the probabilities."""
    return _mean_loss((np.asarray(s, dtype=np.float64) - y) ** 2, weight)


def log_loss(y: Array, s: Array, weight: Array | None = None) -> NDArray[np.float64]:
    """(C,) or (B, C) mean negative log-likelihood (nats) of every label as a yes-or-no question."""
    p = np.clip(np.asarray(s, dtype=np.float64), TINY, 1 - TINY)
    return _mean_loss(-np.where(np.asarray(y) > 0.5, np.log(p), np.log1p(-p)) + 0 * np.asarray(y), weight)


def cross_entropy(y: Array, s: Array) -> NDArray[np.float64]:
    """(1,) mean negative log-probability (nats) of the true class of a multi-class task. y: (N, C) one-hot, rows with NaN left out."""
    known = ~np.isnan(y).any(axis=1)
    own = np.take_along_axis(np.asarray(s[known], dtype=np.float64), y[known].argmax(axis=1)[:, None], axis=1)
    return np.array([-np.log(np.clip(own, TINY, 1)).mean()]) if known.any() else np.array([np.nan])


def _mean_loss(loss: Array, weight: Array | None) -> NDArray[np.float64]:
    """Mean of `loss` (N, C) over rows without NaN, weighted by the columns of `weight` (N, B)."""
    loss = loss[:, None] if loss.ndim == 1 else loss
    known = ~np.isnan(loss)
    w = np.ones((len(loss), 1)) if weight is None else np.asarray(weight, dtype=np.float64)
    mass = w.T @ known.astype(np.float64)
    mean = np.divide(w.T @ np.where(known, loss, 0.0), mass, out=np.full(mass.shape, np.nan), where=mass > 0)
    return mean[0] if weight is None else mean


def reliability(y: Array, s: Array, bins: int = 15, mass: Literal["equal_width", "equal_mass"] = "equal_width") -> dict[str, Array]:
    """For one label, by bin: number of rows, mean probability, share of positives. y, s: (N,). Empty bins are left out.

    equal_width: (0, 1/Q], (1/Q, 2/Q], ...; 0 belongs to the first.  equal_mass: equally many rows a bin, ties kept in order."""
    known = ~np.isnan(y)
    y, s = y[known].astype(np.float64), s[known].astype(np.float64)
    if mass == "equal_width":
        which = np.clip(np.ceil(s * bins).astype(int) - 1, 0, bins - 1)
    else:
        which = np.empty(len(s), dtype=int)
        which[np.argsort(s, kind="stable")] = np.arange(len(s)) * bins // max(len(s), 1)
    count = np.bincount(which, minlength=bins)
    full = count > 0
    totals = [np.bincount(which, weights=values, minlength=bins)[full] for values in (s, y)]
    return {"count": count[full], "confidence": totals[0] / count[full], "frequency": totals[1] / count[full]}


def ece(y: Array, s: Array, bins: int = 15, mass: Literal["equal_width", "equal_mass"] = "equal_width") -> NDArray[np.float64]:
    """(C,) expected calibration error: mean over bins, by their rows, of |share of positives - mean probability|."""
    return np.array([_label_ece(y[:, c], s[:, c], bins, mass) for c in range(y.shape[1])])


def _label_ece(y: Array, s: Array, bins: int, mass: Literal["equal_width", "equal_mass"]) -> float:
    table = reliability(y, s, bins, mass)
    gap = np.abs(table["confidence"] - table["frequency"])
    return float((table["count"] * gap).sum() / table["count"].sum()) if len(gap) else float("nan")


def brier_parts(y: Array, s: Array, bins: int = 15) -> dict[str, float]:
    """One label's Brier score as reliability - resolution + uncertainty + within (Murphy 1973; the last term, due to binning, is from
    Stephenson et al. 2008). They add up exactly. y, s: (N,)."""
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
    """The top-label view of a multi-class task: was the argmax right (N,), 0 or 1, NaN = unknown; and its probability (N,)."""
    right = (np.nan_to_num(y).argmax(axis=1) == s.argmax(axis=1)).astype(np.float64)
    return np.where(np.isnan(y).any(axis=1), np.nan, right), s.max(axis=1)


def temper(s: Array, temperature: float, kind: str = "multilabel") -> NDArray[np.float64]:
    """The probabilities with their logits divided by `temperature`; the order of a label's rows (of a row's classes) does not change."""
    p = np.clip(np.asarray(s, dtype=np.float64), TINY, 1 - TINY)
    if kind == "multiclass":
        logit = np.log(p) / temperature
        odds = np.exp(logit - logit.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)
    logit = (np.log(p) - np.log1p(-p)) / temperature
    return np.exp(-np.logaddexp(0.0, -logit))


def fit_temperature(y: Array, s: Array, kind: str = "multilabel") -> float:
    """The temperature with the least log loss on validation rows, one for all labels. Source: Guo et al. 2017, sec. 4.2.

    The loss is convex in 1 / T; a golden-section search over ln T in [-4, 4] finds it to four digits."""
    if kind == "multiclass":
        rows = ~np.isnan(y).any(axis=1)
        truth = np.nan_to_num(y[rows]).argmax(axis=1)

        def loss(log_t: float) -> float:
            p = temper(s[rows], float(np.exp(log_t)), kind)
            return float(-np.log(np.maximum(p[np.arange(len(p)), truth], TINY)).mean())
    else:

        def loss(log_t: float) -> float:
            return float(np.nanmean(log_loss(y, temper(s, float(np.exp(log_t)), kind))))

    low, high, golden = -4.0, 4.0, (5**0.5 - 1) / 2
    while high - low > 1e-5:
        a, b = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    return float(np.exp((low + high) / 2))


def risk_coverage(wrong: Array, sure: Array) -> dict[str, Any]:
    """Error rate among the most confident rows, at every coverage, and its area. wrong: (N,) 0 or 1.  sure: (N,) confidence."""
    order = np.argsort(-sure, kind="stable")
    count = np.arange(1, len(order) + 1)
    # Rows of equal confidence are answered or refused together: each shares the risk at the end of its group.
    last = np.searchsorted(-sure[order], -sure[order], side="right") - 1
    risk = (np.cumsum(wrong[order]) / count)[last]
    return {"coverage": count[last] / len(order), "risk": risk, "area": float(risk.mean())}
