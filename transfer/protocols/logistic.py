"""L2 logistic regression for a whole grid of C and many labels in one deterministic solve.

Minimises, for every C and label (or once for all classes of a multi-class task), the objective of scikit-learn's LogisticRegression divided
by the number of known rows n:      mean loss + |w|^2 / (2 C n),      the intercept is not penalised.

Three properties make it fast. All problems share the rows, so every step is two wide matrix products. The rows are rotated onto the
principal axes of their Gram matrix, where the Hessian is nearly diagonal: L-BFGS initialised with its diagonal needs tens of iterations for
any C, and a wide matrix (N < D) shrinks to its N axes. The grid is solved upwards in blocks that fit in memory, each initialised with the
previous solution.

Beside the features it holds the rotated rows, float32 and as large, and little else: with N >= 10 D about 2.3 times the features in all.

Shapes: N rows, D width, R axes (<= min(N, D)), S values of C, C labels, P active problems, K columns of a problem (classes, or 1).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from encoders.runtime.arrays import Array, BoolArray, FloatArray
from transfer.protocols.logistic_lbfgs import LogisticBlock, lbfgs
from transfer.protocols.logistic_rows import map_rows, mean_and_inverse_std, rotate_rows

WIDTH_BYTES = 4 * 2**20  # logits of a block of problems; with larger blocks a cold start costs more than wider products gain
WIDTH_SHARE = 48  # with many rows: logits of a block of problems, as a share of the features
LOGITS_BYTES = 8 * 2**20  # logits of several C that are computed by one product
ROUGH_TOLERANCE = 1e-5  # of solves in float32, whose losses are good to about a tenth of this
FINE_TOLERANCE = 1e-6  # below it, axes from float32 would change the penalty by more


@dataclass(frozen=True)
class LogisticModel:
    """Solutions for every C. mean, scale: (D,).  w: (S, D, C), for standardised rows.  b: (S, C).

    converged: (S, labels) whether each problem did; one column in a multi-class task."""

    mean: Array
    scale: Array
    w: Array
    b: Array
    iterations: int
    converged: BoolArray

    def logits(self, x: Array) -> FloatArray:
        """(S, M, C) logits of rows x (M, D)."""
        w = (self.w * self.scale[:, None]).transpose(1, 0, 2).reshape(len(self.mean), -1)  # (D, S C), for rows as they are
        flat = map_rows(x, w, self.b.reshape(-1) - self.mean @ w)  # one product for all C
        return flat.reshape(len(x), *self.b.shape).transpose(1, 0, 2)

    def iterate_logits(self, x: Array) -> Iterator[FloatArray]:
        """Yields the logits (M, C) for each C in turn; those of a few C at a time are in memory."""
        step = max(1, LOGITS_BYTES // max(1, 8 * len(x) * self.b.shape[1]))
        for at in range(0, len(self.b), step):
            some = slice(at, at + step)
            yield from replace(self, w=self.w[some], b=self.b[some]).logits(x)

    def at(self, i: int) -> "LogisticModel":
        """The solution for one C."""
        return replace(self, w=self.w[i : i + 1], b=self.b[i : i + 1], converged=self.converged[i : i + 1])


def logits_to_probabilities(logits: Array, kind: str) -> FloatArray:
    """(M, C) softmax over the classes of a multi-class task, otherwise a sigmoid for every label. logits: (M, C)."""
    if kind == "multiclass":
        odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
        softmax: FloatArray = odds / odds.sum(axis=-1, keepdims=True)
        return softmax
    p: FloatArray = np.exp(-np.logaddexp(0.0, -logits))
    return p


def solve_logistic(
    x: Array | Sequence[Array], y: Array, grid: Array, kind: str, standardise: bool = True, tolerance: float = 1e-6, max_iter: int = 500
) -> LogisticModel:
    """Solutions for every C of the ascending `grid`. x: (N, D), or consecutive arrays of its rows.  y: (N, C) in {0, 1}, NaN = unknown (not
    in a multi-class task).

    A problem has converged when its loss, with the penalty, is estimated to be above the minimum by at most `tolerance` times itself. The
    gradient of the mean loss cannot bound that: it shrinks with the prevalence of a label, and where rows are separable with the loss.
    A label with a single known class has no finite solution: its w is 0 and its intercept is computed with half a row added per class."""
    pieces = [x] if isinstance(x, np.ndarray) else list(x)
    width = pieces[0].shape[1]
    mean, scale = mean_and_inverse_std(pieces) if standardise else (np.zeros(width), np.ones(width))
    rough = tolerance >= FINE_TOLERANCE
    a, to_columns = rotate_rows(pieces, mean, scale, rough)
    y = np.asarray(y, dtype=np.float32)
    classes = y.shape[1] if kind == "multiclass" else 1
    labels = y.shape[1] // classes
    theta = initial_theta(y, a.shape[1] - 1, classes).reshape(-1, labels, classes)  # (R + 1, labels, K)
    cs = np.asarray(grid, dtype=np.float64)
    whole = np.empty((a.shape[1], len(cs), labels, classes))
    converged, steps = np.ones((len(cs), labels), dtype=bool), 0
    for c_index, label in _problem_blocks(len(cs), labels, 8 * len(y) * classes, sum(p.nbytes for p in pieces)):
        block = LogisticBlock(a, y, cs[c_index], label, classes)
        start, rough_steps = theta[:, label], 0
        if rough:  # float32 solves most of it in half the time; the float64 solve after it checks and corrects
            start, rough_steps, _ = lbfgs(replace(block, dtype=np.float32), start, max(tolerance, ROUGH_TOLERANCE), max_iter // 2)
        solution, block_steps, ok = lbfgs(block, start, tolerance, max_iter)
        whole[:, c_index, label] = solution
        converged[c_index, label] = ok
        theta[:, label] = solution  # of several C, the largest stays: the last assignment
        steps += block_steps + rough_steps
    flat = whole.reshape(a.shape[1], len(cs), -1)
    w = to_columns(flat[:-1]).transpose(1, 0, 2)  # (S, D, C)
    w[:, scale == 0] = 0
    return LogisticModel(mean, scale, w, flat[-1], steps, converged)


def _problem_blocks(n_c: int, labels: int, problem_bytes: int, feature_bytes: int) -> Iterator[tuple[Array, Array]]:
    """Index of C (P,) and of the label (P,) of the problems that are solved together, C ascending: all labels of some C, or some labels."""
    width = max(1, max(WIDTH_BYTES, feature_bytes // WIDTH_SHARE) // problem_bytes)
    c_step, label_step = max(1, width // labels), min(width, labels)
    for at in range(0, n_c, c_step):
        for first in range(0, labels, label_step):
            c, label = np.arange(at, min(at + c_step, n_c)), np.arange(first, min(first + label_step, labels))
            yield np.repeat(c, len(label)), np.tile(label, len(c))


def initial_theta(y: Array, r: int, classes: int) -> FloatArray:
    """(R + 1, C): slope 0, and the intercept that gives every label (class) its prevalence."""
    known = ~np.isnan(y)
    n, hits = known.sum(axis=0), np.nansum(y, axis=0, dtype=np.float64)
    rate = (hits + 0.5) / (n + 1)
    theta = np.zeros((r + 1, y.shape[1]))
    theta[-1] = np.log(rate) - np.log(rate).mean() if classes > 1 else np.log(rate / (1 - rate))
    return theta
