"""L2 logistic regression for a whole grid of C and many labels in one deterministic solve.

Minimises, for every C and label (or once for all classes of a multi-class task), the objective of scikit-learn's LogisticRegression divided
by the number of known rows n:      mean loss + |w|^2 / (2 C n),      the intercept free.

Three things make it quick. All problems share the rows, so every step is two wide matrix products. The rows are rotated onto the principal
axes of their Gram matrix, where the Hessian at the start, pi (1 - pi) lambda_j + 1 / C, is diagonal: L-BFGS started from it needs tens of
iterations for any C, and a wide matrix (N < D) shrinks to its N axes. And logits are linear along a step, so that a line search costs no
product. The grid is walked upwards in blocks that fit the memory, each started from the solution before it.

Shapes: N rows, D width, R axes (<= min(N, D)), S values of C, C labels, P problems in work, K columns of a problem (classes, or 1).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import Array

BLOCK_BYTES = 4 * 2**20  # logits in work; larger blocks lose more to a cold start than wider products gain
ROUGH_TOLERANCE = 1e-5  # gradients from float32 products are good to about a tenth of this
LBFGS_MEMORY = 10  # pairs kept by L-BFGS
LINE_SEARCH_TRIES = 12  # points of a line search; the first is accepted nearly always


@dataclass(frozen=True)
class LogisticModel:
    """Solutions for every C. mean, scale: (D,).  w: (S, D, C) on standardised rows.  b: (S, C)."""

    mean: Array
    scale: Array
    w: Array
    b: Array
    iterations: int
    converged: bool

    def logits(self, x: Array) -> NDArray[np.float64]:
        """(S, M, C) logits of rows x (M, D)."""
        z = (np.asarray(x, dtype=np.float64) - self.mean) * self.scale
        flat = z @ self.w.transpose(1, 0, 2).reshape(z.shape[1], -1)  # (M, S C), one product for all C
        return flat.reshape(len(z), *self.b.shape).transpose(1, 0, 2) + self.b[:, None]

    def at(self, i: int) -> "LogisticModel":
        """The solution for one C."""
        return replace(self, w=self.w[i : i + 1], b=self.b[i : i + 1])


def logits_to_probabilities(logits: Array, kind: str) -> NDArray[np.float64]:
    """Softmax over the classes of a multi-class task, a sigmoid for every label otherwise. logits: (M, C)."""
    if kind == "multiclass":
        odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return odds / odds.sum(axis=-1, keepdims=True)
    return np.exp(-np.logaddexp(0.0, -logits))


def solve_logistic(
    x: Array, y: Array, grid: Array, kind: str, standardise: bool = True, tolerance: float = 1e-4, max_iter: int = 500
) -> LogisticModel:
    """Solutions for every C of the ascending `grid`. x: (N, D).  y: (N, C) in {0, 1}, NaN = unknown (not in a multi-class task).

    A problem is done when the norm of its gradient is at most `tolerance`; `converged` says whether all were within `max_iter` steps.
    A label of which one class is known has no finite solution: its w is 0 and its intercept that of half a row more a class."""
    mean, scale = mean_and_inverse_std(x) if standardise else (np.zeros(x.shape[1]), np.ones(x.shape[1]))
    axes, a, eigen = rotate_rows((np.asarray(x, dtype=np.float64) - mean) * scale, rough=tolerance >= ROUGH_TOLERANCE)
    classes = y.shape[1] if kind == "multiclass" else 1
    y = np.asarray(y, dtype=np.float64)
    rows32, y32 = a.astype(np.float32), y.astype(np.float32)
    theta = initial_theta(y, len(eigen), classes)  # (R + 1, C)
    labels = y.shape[1] // classes
    width = max(1, BLOCK_BYTES // (8 * len(y) * y.shape[1]))
    solved, steps, done = [], 0, True
    for at in range(0, len(grid), width):
        cs = np.asarray(grid[at : at + width], dtype=np.float64)
        block = LogisticBlock(a, y, eigen, np.repeat(cs, labels), np.tile(np.arange(labels), len(cs)), classes)
        found = np.tile(theta.reshape(-1, labels, classes), (1, len(cs), 1))  # (R + 1, P, K)
        rough = 0
        if (
            tolerance >= ROUGH_TOLERANCE
        ):  # most of the way in half the time; the float64 solve that follows checks it, and mends what is left
            found, rough, _ = lbfgs(replace(block, a=rows32, y=y32), found, 0.8 * tolerance, max_iter // 2)
        found, used, all_done = lbfgs(block, found, tolerance, max_iter)
        used += rough
        theta = found[:, -labels:].reshape(len(eigen) + 1, -1)
        solved.append(found.reshape(len(eigen) + 1, len(cs), -1))
        steps, done = steps + used, done and all_done
    whole = np.concatenate(solved, axis=1)  # (R + 1, S, C)
    w = np.einsum("dr,rsc->sdc", axes, whole[:-1], optimize=True)
    return LogisticModel(mean, scale, w, whole[-1], steps, done)


def mean_and_inverse_std(x: Array) -> tuple[Array, Array]:
    """Mean and one over the standard deviation of every column, (D,) each; a constant column is scaled to 0."""
    mean = x.mean(axis=0, dtype=np.float64)
    spread = np.sqrt(((np.asarray(x, dtype=np.float64) - mean) ** 2).mean(axis=0))
    # float32 features of a dead unit differ from their mean by rounding only: 1e-6 of the mean is below what they resolve.
    alive = spread > 1e-6 * np.abs(mean)
    return mean, np.where(alive & (spread > 0), 1 / np.where(spread > 0, spread, 1), 0.0)


def rotate_rows(z: Array, rough: bool = False) -> tuple[Array, Array, Array]:
    """Axes (D, R), rows on them with a column of ones (N, R + 1), and their squared lengths (R,): z = rows @ axes.T up to rounding.

    rough: with N >= D, axes whose angles are right to float32's 1e-6, in half the time. The rows are those of these very axes, so that the
    loss is exact, and |w|^2 is off by that share."""
    tall = len(z) >= z.shape[1]
    if rough and tall:
        from scipy.linalg import eigh

        axes = eigh((z.T @ z).astype(np.float32), driver="evd", overwrite_a=True, check_finite=False)[1].astype(np.float64)
        rows = z @ axes
        lengths = np.einsum("nr,nr->r", rows, rows)
        keep = lengths > lengths.max(initial=0) * len(lengths) * np.finfo(float).eps
        return axes[:, keep], np.concatenate([rows[:, keep], np.ones((len(z), 1))], axis=1), lengths[keep]
    eigen, vectors = np.linalg.eigh(z.T @ z if tall else z @ z.T)  # ascending
    keep = eigen > max(eigen[-1], 0) * len(eigen) * np.finfo(float).eps
    eigen, vectors = eigen[keep], vectors[:, keep]
    axes = vectors if tall else z.T @ (vectors / np.sqrt(eigen))
    return axes, np.concatenate([z @ axes, np.ones((len(z), 1))], axis=1), eigen


def initial_theta(y: Array, r: int, classes: int) -> Array:
    """(R + 1, C): no slope, and the intercept that gives every label (class) its prevalence."""
    known = ~np.isnan(y)
    n, hits = known.sum(axis=0), np.nansum(y, axis=0)
    rate = (hits + 0.5) / (n + 1)
    theta = np.zeros((r + 1, y.shape[1]))
    theta[-1] = np.log(rate) - np.log(rate).mean() if classes > 1 else np.log(rate / (1 - rate))
    return theta


@dataclass
class LogisticBlock:
    """P problems over the same rows. a: (N, R + 1).  y: (N, C).  c, label: (P,) the strength and the label of each (0 if multi-class)."""

    a: Array
    y: Array
    eigen: Array
    c: Array
    label: Array
    k: int

    def __post_init__(self) -> None:
        self.known = ~np.isnan(self.y) if self.k == 1 else np.ones((len(self.y), 1), dtype=bool)
        self.given = np.nan_to_num(self.y)
        self.full = bool(self.known.all())
        self.n = np.maximum(self.known.sum(axis=0), 1)[self.label]  # (P,)
        hits = self.given.sum(axis=0)[None] if self.k > 1 else self.given.sum(axis=0)[self.label][:, None]
        rate = (hits + 0.5) / (self.n[:, None] + 1)  # (P, K)
        self.ridge = np.concatenate([np.ones(len(self.eigen)), [0.0]])[:, None, None] / (self.c * self.n)[None, :, None]  # (R + 1, P, 1)
        bend = np.concatenate([self.eigen / len(self.y), [1.0]])  # (R + 1,) mean square of every axis
        self.hessian = bend[:, None, None] * (rate * (1 - rate))[None] + self.ridge  # (R + 1, P, K), at the start
        # One known class: nothing to learn, and the intercept would run away.
        self.void = (self.k == 1) & ((hits[:, 0] == 0) | (hits[:, 0] == self.n))

    def only(self, keep: Array) -> "LogisticBlock":
        return LogisticBlock(self.a, self.y, self.eigen, self.c[keep], self.label[keep], self.k)

    def logits(self, theta: Array) -> Array:
        """(N, P, K)"""
        flat = theta.reshape(len(theta), -1).astype(self.a.dtype, copy=False)
        return (self.a @ flat).reshape(len(self.a), -1, self.k)

    def gradient(self, theta: Array, residual: Array) -> Array:
        """(R + 1, P, K) from the residuals (N, P, K)."""
        flat = (self.a.T @ residual.reshape(len(residual), -1)).reshape(theta.shape)
        return flat / self.n[None, :, None] + self.ridge * theta

    def loss(self, logits: Array, which: Array) -> tuple[Array, Array]:
        """Mean loss (P,) and residual, probability minus label (N, P, K), of the problems `which` at their logits (N, P, K)."""
        label, n = self.label[which], self.n[which]
        if self.k > 1:
            top = logits.max(axis=2, keepdims=True)
            p = logits - top
            np.exp(p, out=p)
            total = np.einsum("npk->np", p)
            p /= total[:, :, None]
            own = np.einsum("npk,nk->np", logits, self.given)
            p -= self.given[:, None]
            return (np.log(total) + top[..., 0] - own).sum(axis=0, dtype=np.float64) / n, p
        z, y = logits[..., 0], self.given[:, label]
        small = np.exp(-np.abs(z))
        one = z.dtype.type(1)
        loss = np.log1p(small) + np.maximum(z, 0) - y * z
        residual = np.where(z >= 0, one, small) / (one + small) - y
        if not self.full:
            loss, residual = loss * self.known[:, label], residual * self.known[:, label]
        return loss.sum(axis=0, dtype=np.float64) / n, residual[..., None]


def batched_dot(a: Array, b: Array) -> Array:
    """(P,) inner product of every problem. a, b: (R + 1 or N, P, K)."""
    return np.einsum("rpk,rpk->p", a, b)


def lbfgs(block: LogisticBlock, theta: Array, tolerance: float, max_iter: int) -> tuple[Array, int, bool]:
    """The solutions (R + 1, P, K), the steps taken, and whether all converged. A problem that is done leaves the work."""
    out, place = theta.copy(), np.arange(theta.shape[1])
    if block.void.any():
        keep = np.flatnonzero(~block.void)
        block, theta, place = block.only(keep), theta[:, keep], place[keep]
    if not len(place):
        return out, 0, True
    logits = block.logits(theta)
    value, residual = block.loss(logits, np.arange(len(place)))
    value = value + 0.5 * batched_dot(block.ridge * theta, theta)
    grad = block.gradient(theta, residual)
    pairs: list[tuple[Array, Array, Array]] = []
    for step in range(max_iter):
        left = np.flatnonzero(np.sqrt(batched_dot(grad, grad)) > tolerance)
        if len(left) < len(place):
            out[:, place] = theta
            if not len(left):
                return out, step, True
            block, place, theta, grad = block.only(left), place[left], theta[:, left], grad[:, left]
            logits, value = logits[:, left], value[left]
            pairs = [(s[:, left], g[:, left], r[left]) for s, g, r in pairs]
        way = -apply_inverse_hessian(grad, pairs, block.hessian)
        rise = block.logits(way)
        length, value, logits, residual = line_search(block, theta, way, logits, rise, value, batched_dot(grad, way))
        move = length[None, :, None] * way
        theta = theta + move
        fresh = block.gradient(theta, residual)
        bend = batched_dot(move, fresh - grad)
        pairs = [*pairs[1 - LBFGS_MEMORY :], (move, fresh - grad, np.where(bend > 0, 1 / np.where(bend > 0, bend, 1), 0.0))]
        grad = fresh
    out[:, place] = theta
    return out, max_iter, bool((np.sqrt(batched_dot(grad, grad)) <= tolerance).all())


def apply_inverse_hessian(grad: Array, pairs: list[tuple[Array, Array, Array]], hessian: Array) -> Array:
    """The inverse Hessian that L-BFGS believes in, times the gradient. Source: Nocedal and Wright, algorithm 7.4."""
    q, kept = grad, []
    for move, change, rho in reversed(pairs):
        alpha = rho * batched_dot(move, q)
        kept.append(alpha)
        q = q - alpha[None, :, None] * change
    q = q / hessian
    if pairs:
        move, change, rho = pairs[-1]
        size = rho * batched_dot(change, change / hessian)  # 1 / gamma; 0 only where the pair was refused
        q = q / np.where(size > 0, size, 1.0)[None, :, None]
    for (move, change, rho), alpha in zip(pairs, reversed(kept), strict=True):
        q = q + (alpha - rho * batched_dot(change, q))[None, :, None] * move
    return q


def line_search(
    block: LogisticBlock, theta: Array, way: Array, logits: Array, rise: Array, value: Array, slope: Array
) -> tuple[Array, Array, Array, Array]:
    """Step lengths (P,) that fulfil the Wolfe conditions, with value, logits and residual there. Only elementwise work.

    The loss along the way is convex: where the slope is still steep downwards the step grows, where it went too far the secant of the
    slopes at both ends of the bracket is taken."""
    length, low, high = np.ones(len(value)), np.zeros(len(value)), np.full(len(value), np.inf)
    slope_low, slope_high = slope.copy(), np.zeros(len(value))
    reg = [batched_dot(block.ridge * theta, theta), batched_dot(block.ridge * theta, way), batched_dot(block.ridge * way, way)]
    new_value, new_logits, residual = value, logits, rise
    todo = np.arange(len(value))
    for _ in range(LINE_SEARCH_TRIES):
        t = length[todo]
        whole, far_t = len(todo) == len(value), t.astype(logits.dtype)[None, :, None]
        at = logits + far_t * rise if whole else logits[:, todo] + far_t * rise[:, todo]
        loss, slack = block.loss(at, todo)
        there = loss + 0.5 * reg[0][todo] + t * reg[1][todo] + 0.5 * t**2 * reg[2][todo]
        steep = batched_dot(slack, rise if whole else rise[:, todo]) / block.n[todo] + reg[1][todo] + t * reg[2][todo]
        if whole:
            new_value, new_logits, residual = there, at, slack
        else:
            new_value[todo], new_logits[:, todo], residual[:, todo] = there, at, slack
        # Close to the optimum rounding hides the decrease.
        falls = there <= value[todo] + 1e-4 * t * slope[todo] + 10 * np.finfo(logits.dtype).eps * np.abs(value[todo])
        fine = falls & (np.abs(steep) <= 0.9 * np.abs(slope[todo]))
        far = ~falls | (steep > 0)
        high[todo] = np.where(far, t, high[todo])
        slope_high[todo] = np.where(far, steep, slope_high[todo])
        low[todo] = np.where(far, low[todo], t)
        slope_low[todo] = np.where(far, slope_low[todo], steep)
        todo = todo[~fine]
        if not len(todo):
            break
        span, rise_of_slope = high[todo] - low[todo], slope_high[todo] - slope_low[todo]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.clip(np.where(rise_of_slope > 0, -slope_low[todo] / rise_of_slope, 0.5), 0.1, 0.9)
            length[todo] = np.where(np.isinf(high[todo]), 2 * length[todo], low[todo] + share * span)
    return length, new_value, new_logits, residual
