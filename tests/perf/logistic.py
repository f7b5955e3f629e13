"""The logistic solver against scikit-learn over 45 values of C, at equal loss: prints the ratio of CPU seconds.

    OMP_NUM_THREADS=1 python -m tests.perf.logistic [--every 5]

CPU time instead of wall time, so that other load does not matter. With --every k, scikit-learn solves every k-th C only and its time is
multiplied by k. Target: a ratio of at most 0.4 (the binary rows are separable, and large C takes
the most steps) and 0.2 (9 classes), and no C with a loss more than 1e-4 above that of scikit-learn.
"""

import argparse
import time
import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression

from transfer.protocols.logistic import solve_logistic

GRID = np.logspace(-6, 5, 45)


def make_data(n: int, d: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features with a decaying spectrum after a ReLU, like those of a CNN, and labels that they partly predict."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.5
    x = np.maximum(factors @ np.linalg.qr(rng.normal(size=(d, d)))[0], 0) + 0.01 * rng.normal(size=(n, d))
    logit = (x - x.mean(0)) / x.std(0) @ rng.normal(size=(d, k)) * 0.2 * (512 / d) ** 0.5
    if k == 1:
        return x.astype(np.float32), (logit + rng.logistic(size=logit.shape) > 0.5).astype(np.float32)
    return x.astype(np.float32), np.eye(k, dtype=np.float32)[(logit + rng.gumbel(size=logit.shape)).argmax(1)]


def objective(w: np.ndarray, b: np.ndarray, z: np.ndarray, y: np.ndarray, c: float) -> float:
    logit = z @ w + b
    if y.shape[1] > 1:
        loss = np.logaddexp.reduce(logit, axis=1) - (logit * y).sum(1)
    else:
        loss = (np.logaddexp(0, logit) - y * logit)[:, 0]
    return float(loss.mean() + 0.5 * (w**2).sum() / (c * len(z)))


def compare_solvers(n: int, d: int, k: int, every: int) -> None:
    x, y = make_data(n, d, k)
    kind = "multiclass" if k > 1 else "binary"
    start = time.process_time()
    model = solve_logistic(x, y, GRID, kind)
    ours = time.process_time() - start
    z, largest, different, sklearn_seconds = (x - model.mean) * model.scale, -np.inf, 0, 0.0
    for i in range(0, len(GRID), every):
        start = time.process_time()
        other = LogisticRegression(C=GRID[i], max_iter=10_000).fit(z, y.argmax(1) if k > 1 else y[:, 0])
        sklearn_seconds += (time.process_time() - start) * every
        loss = objective(model.w[i], model.b[i], z, y, GRID[i])
        largest = max(largest, loss - objective(other.coef_.T, other.intercept_, z, y, GRID[i]))
        logit = model.logits(x)[i]
        different += int(((logit.argmax(1) if k > 1 else logit[:, 0] > 0) != other.predict(z)).sum())
    print(
        f"{n} x {d}, {k} {kind}: ours {ours:.1f} s, scikit-learn {sklearn_seconds:.1f} s, ratio {ours / sklearn_seconds:.3f}; "
        f"largest excess loss {largest:.1e}, {different} of {n * len(range(0, len(GRID), every))} predictions differ",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1)
    every = parser.parse_args().every
    warnings.simplefilter("ignore")
    compare_solvers(2_000, 1280, 1, every)
    compare_solvers(10_000, 512, 9, every)
