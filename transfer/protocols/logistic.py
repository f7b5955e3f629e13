"""L2 logistic regression for a whole grid of C and many labels at once."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Model:
    """Solutions for every C. mean, scale: (D,).  w: (S, D, C) on standardised features.  b: (S, C); S values of C."""

    mean: Array
    scale: Array
    w: Array
    b: Array
    iterations: int
    converged: bool

    def logits(self, x: Array) -> NDArray[np.float64]:
        """(S, M, C) logits of rows x (M, D)."""
        z = (np.asarray(x, dtype=np.float64) - self.mean) * self.scale
        return z @ self.w + self.b[:, None]

    def at(self, i: int) -> "Model":
        return replace(self, w=self.w[i : i + 1], b=self.b[i : i + 1])


def probabilities(logits: Array, kind: str) -> NDArray[np.float64]:
    """Softmax over the classes of a multi-class task, a sigmoid for every label otherwise. logits: (M, C)."""
    if kind == "multiclass":
        odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return odds / odds.sum(axis=-1, keepdims=True)
    return np.exp(-np.logaddexp(0.0, -logits))


def solve(x: Array, y: Array, grid: Array, kind: str, standardise: bool = True, tolerance: float = 1e-5, max_iter: int = 500) -> Model:
    """PLACEHOLDER until the batched solver lands: scikit-learn."""
    from sklearn.linear_model import LogisticRegression

    x = np.asarray(x, dtype=np.float64)
    mean = x.mean(axis=0) if standardise else np.zeros(x.shape[1])
    std = x.std(axis=0) if standardise else np.ones(x.shape[1])
    scale = np.where(std > 0, 1 / np.where(std > 0, std, 1), 0)
    z = (x - mean) * scale
    w, b = np.zeros((len(grid), x.shape[1], y.shape[1])), np.zeros((len(grid), y.shape[1]))
    for i, c in enumerate(grid):
        if kind == "multiclass":
            m = LogisticRegression(C=c, max_iter=max_iter).fit(z, y.argmax(axis=1))
            w[i], b[i] = m.coef_.T, m.intercept_
            continue
        for j in range(y.shape[1]):
            k = ~np.isnan(y[:, j])
            m = LogisticRegression(C=c, max_iter=max_iter).fit(z[k], y[k, j])
            w[i, :, j], b[i, j] = m.coef_[0], m.intercept_[0]
    return Model(mean, scale, w, b, 0, True)
