"""L2 logistic regression for a whole grid of C and many labels in one deterministic solve.

Minimises, for every C and label (or once for all classes of a multi-class task), the objective of scikit-learn's LogisticRegression divided
by the number of known rows n:      mean loss + |w|^2 / (2 C n),      the intercept is not penalised.

Three properties make it fast. All problems share the rows, so every step is two wide matrix products. The rows are rotated onto the
principal axes of their Gram matrix, where the initial Hessian, pi (1 - pi) lambda_j + 1 / C, is diagonal: L-BFGS initialised with it needs
tens of iterations for any C, and a wide matrix (N < D) shrinks to its N axes. Logits are linear along a step, so a line search needs no
matrix product. The grid is solved upwards in blocks that fit in memory, each initialised with the previous solution.

Shapes: N rows, D width, R axes (<= min(N, D)), S values of C, C labels, P active problems, K columns of a problem (classes, or 1).
"""

from dataclasses import dataclass, replace

import numpy as np

from encoders.runtime.arrays import Array, FloatArray

BLOCK_BYTES = 4 * 2**20  # logits per block; with larger blocks a cold start costs more than wider products gain
ROUGH_TOLERANCE = 1e-5  # gradients from float32 products are good to about a tenth of this
LBFGS_MEMORY = 10  # update pairs that L-BFGS keeps
LINE_SEARCH_TRIES = 12  # points of a line search; nearly always the first is accepted


@dataclass(frozen=True)
class LogisticModel:
    """Solutions for every C. mean, scale: (D,).  w: (S, D, C), for standardised rows.  b: (S, C)."""

    mean: Array
    scale: Array
    w: Array
    b: Array
    iterations: int
    converged: bool

    def logits(self, x: Array) -> FloatArray:
        """(S, M, C) logits of rows x (M, D)."""
        z = (np.asarray(x, dtype=np.float64) - self.mean) * self.scale
        flat = z @ self.w.transpose(1, 0, 2).reshape(z.shape[1], -1)  # (M, S C), one product for all C
        logits: FloatArray = flat.reshape(len(z), *self.b.shape).transpose(1, 0, 2) + self.b[:, None]
        return logits

    def at(self, i: int) -> "LogisticModel":
        """The solution for one C."""
        return replace(self, w=self.w[i : i + 1], b=self.b[i : i + 1])


def logits_to_probabilities(logits: Array, kind: str) -> FloatArray:
    """(M, C) softmax over the classes of a multi-class task, otherwise a sigmoid for every label. logits: (M, C)."""
    if kind == "multiclass":
        odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
        softmax: FloatArray = odds / odds.sum(axis=-1, keepdims=True)
        return softmax
    p: FloatArray = np.exp(-np.logaddexp(0.0, -logits))
    return p


def solve_logistic(
    x: Array, y: Array, grid: Array, kind: str, standardise: bool = True, tolerance: float = 1e-4, max_iter: int = 500
) -> LogisticModel:
    """Solutions for every C of the ascending `grid`. x: (N, D).  y: (N, C) in {0, 1}, NaN = unknown (not in a multi-class task).

    A problem has converged when its gradient norm is at most `tolerance`; `converged` is True when all have within `max_iter` steps.
    A label with a single known class has no finite solution: its w is 0 and its intercept is computed with half a row added per class."""
    mean, scale = mean_and_inverse_std(x) if standardise else (np.zeros(x.shape[1]), np.ones(x.shape[1]))
    axes, a, eigen = rotate_rows((np.asarray(x, dtype=np.float64) - mean) * scale, rough=tolerance >= ROUGH_TOLERANCE)
    classes = y.shape[1] if kind == "multiclass" else 1
    y = np.asarray(y, dtype=np.float64)
    rows32, y32 = a.astype(np.float32), y.astype(np.float32)
    theta = initial_theta(y, len(eigen), classes)  # (R + 1, C)
    labels = y.shape[1] // classes
    width = max(1, BLOCK_BYTES // (8 * len(y) * y.shape[1]))
    solutions, steps, converged = [], 0, True
    for at in range(0, len(grid), width):
        cs = np.asarray(grid[at : at + width], dtype=np.float64)
        block = LogisticBlock(a, y, eigen, np.repeat(cs, labels), np.tile(np.arange(labels), len(cs)), classes)
        start = np.tile(theta.reshape(-1, labels, classes), (1, len(cs), 1))  # (R + 1, P, K)
        rough_steps = 0
        if tolerance >= ROUGH_TOLERANCE:  # float32 solves most of it in half the time; the float64 solve after it checks and corrects
            start, rough_steps, _ = lbfgs(replace(block, a=rows32, y=y32), start, 0.8 * tolerance, max_iter // 2)
        solution, block_steps, block_converged = lbfgs(block, start, tolerance, max_iter)
        theta = solution[:, -labels:].reshape(len(eigen) + 1, -1)
        solutions.append(solution.reshape(len(eigen) + 1, len(cs), -1))
        steps, converged = steps + block_steps + rough_steps, converged and block_converged
    whole = np.concatenate(solutions, axis=1)  # (R + 1, S, C)
    w = np.einsum("dr,rsc->sdc", axes, whole[:-1], optimize=True)
    return LogisticModel(mean, scale, w, whole[-1], steps, converged)


def mean_and_inverse_std(x: Array) -> tuple[Array, Array]:
    """Mean and inverse standard deviation of every column, (D,) each; a constant column is scaled to 0."""
    mean = x.mean(axis=0, dtype=np.float64)
    std = np.sqrt(((np.asarray(x, dtype=np.float64) - mean) ** 2).mean(axis=0))
    # float32 features of a dead unit differ from their mean by rounding only: 1e-6 of the mean is below their resolution.
    alive = std > 1e-6 * np.abs(mean)
    return mean, np.where(alive & (std > 0), 1 / np.where(std > 0, std, 1), 0.0)


def rotate_rows(z: Array, rough: bool = False) -> tuple[Array, Array, Array]:
    """Axes (D, R), rotated rows with a column of ones (N, R + 1), and squared lengths of the axes (R,): z = rows @ axes.T up to rounding.

    rough: with N >= D, axes whose angles are accurate to 1e-6 (float32), in half the time. The rows are rotated onto these same axes, so
    that the loss is exact and |w|^2 has a relative error of 1e-6."""
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
    """(R + 1, C): slope 0, and the intercept that gives every label (class) its prevalence."""
    known = ~np.isnan(y)
    n, hits = known.sum(axis=0), np.nansum(y, axis=0)
    rate = (hits + 0.5) / (n + 1)
    theta = np.zeros((r + 1, y.shape[1]))
    theta[-1] = np.log(rate) - np.log(rate).mean() if classes > 1 else np.log(rate / (1 - rate))
    return theta


@dataclass
class LogisticBlock:
    """P problems on the same rows. a: (N, R + 1).  y: (N, C).  c, label: (P,) C and label of each problem (label 0 if multi-class)."""

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
        mean_square = np.concatenate([self.eigen / len(self.y), [1.0]])  # (R + 1,) of every axis
        self.hessian = mean_square[:, None, None] * (rate * (1 - rate))[None] + self.ridge  # (R + 1, P, K), initial
        # With a single known class there is nothing to learn, and the intercept would diverge.
        self.void = (self.k == 1) & ((hits[:, 0] == 0) | (hits[:, 0] == self.n))

    def only(self, keep: Array) -> "LogisticBlock":
        """The problems `keep`."""
        return LogisticBlock(self.a, self.y, self.eigen, self.c[keep], self.label[keep], self.k)

    def logits(self, theta: Array) -> Array:
        """(N, P, K) logits."""
        flat = theta.reshape(len(theta), -1).astype(self.a.dtype, copy=False)
        logits: Array = (self.a @ flat).reshape(len(self.a), -1, self.k)
        return logits

    def gradient(self, theta: Array, residual: Array) -> Array:
        """(R + 1, P, K) gradient from the residuals (N, P, K)."""
        flat = (self.a.T @ residual.reshape(len(residual), -1)).reshape(theta.shape)
        gradient: Array = flat / self.n[None, :, None] + self.ridge * theta
        return gradient

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
    """(P,) inner product for every problem. a, b: (R + 1 or N, P, K)."""
    product: Array = np.einsum("rpk,rpk->p", a, b)
    return product


def lbfgs(block: LogisticBlock, theta: Array, tolerance: float, max_iter: int) -> tuple[Array, int, bool]:
    """The solutions (R + 1, P, K), the number of steps, and whether all converged. A converged problem is not computed further."""
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
        active = np.flatnonzero(np.sqrt(batched_dot(grad, grad)) > tolerance)
        if len(active) < len(place):
            out[:, place] = theta
            if not len(active):
                return out, step, True
            block, place, theta, grad = block.only(active), place[active], theta[:, active], grad[:, active]
            logits, value = logits[:, active], value[active]
            pairs = [(s[:, active], g[:, active], r[active]) for s, g, r in pairs]
        direction = -apply_inverse_hessian(grad, pairs, block.hessian)
        logits_change = block.logits(direction)
        length, value, logits, residual = line_search(block, theta, direction, logits, logits_change, value, batched_dot(grad, direction))
        move = length[None, :, None] * direction
        theta = theta + move
        new_grad = block.gradient(theta, residual)
        curvature = batched_dot(move, new_grad - grad)
        rho = np.where(curvature > 0, 1 / np.where(curvature > 0, curvature, 1), 0.0)
        pairs = [*pairs[1 - LBFGS_MEMORY :], (move, new_grad - grad, rho)]
        grad = new_grad
    out[:, place] = theta
    return out, max_iter, bool((np.sqrt(batched_dot(grad, grad)) <= tolerance).all())


def apply_inverse_hessian(grad: Array, pairs: list[tuple[Array, Array, Array]], hessian: Array) -> Array:
    """The L-BFGS approximation of the inverse Hessian, times the gradient. Source: Nocedal and Wright, algorithm 7.4."""
    q, kept = grad, []
    for move, change, rho in reversed(pairs):
        alpha = rho * batched_dot(move, q)
        kept.append(alpha)
        q = q - alpha[None, :, None] * change
    q = q / hessian
    if pairs:
        move, change, rho = pairs[-1]
        size = rho * batched_dot(change, change / hessian)  # 1 / gamma; 0 only where the pair was rejected
        q = q / np.where(size > 0, size, 1.0)[None, :, None]
    for (move, change, rho), alpha in zip(pairs, reversed(kept), strict=True):
        q = q + (alpha - rho * batched_dot(change, q))[None, :, None] * move
    return q


def line_search(
    block: LogisticBlock, theta: Array, direction: Array, logits: Array, logits_change: Array, value: Array, slope: Array
) -> tuple[Array, Array, Array, Array]:
    """Step lengths (P,) that satisfy the Wolfe conditions, with value, logits and residual at these points. Elementwise operations only.

    The loss along the direction is convex: while it still falls steeply the step doubles; after overshooting, the secant of the slopes at
    both ends of the bracket gives the next point."""
    length, low, high = np.ones(len(value)), np.zeros(len(value)), np.full(len(value), np.inf)
    slope_low, slope_high = slope.copy(), np.zeros(len(value))
    ridge_direction = block.ridge * direction
    reg = [batched_dot(block.ridge * theta, theta), batched_dot(block.ridge * theta, direction), batched_dot(ridge_direction, direction)]
    new_value, new_logits, residual = value, logits, logits_change
    todo = np.arange(len(value))
    for _ in range(LINE_SEARCH_TRIES):
        t = length[todo]
        whole, far_t = len(todo) == len(value), t.astype(logits.dtype)[None, :, None]
        at = logits + far_t * logits_change if whole else logits[:, todo] + far_t * logits_change[:, todo]
        loss, residual_at = block.loss(at, todo)
        value_at = loss + 0.5 * reg[0][todo] + t * reg[1][todo] + 0.5 * t**2 * reg[2][todo]
        data_slope = batched_dot(residual_at, logits_change if whole else logits_change[:, todo]) / block.n[todo]
        slope_at = data_slope + reg[1][todo] + t * reg[2][todo]
        if whole:
            new_value, new_logits, residual = value_at, at, residual_at
        else:
            new_value[todo], new_logits[:, todo], residual[:, todo] = value_at, at, residual_at
        # Close to the optimum rounding hides the decrease.
        falls = value_at <= value[todo] + 1e-4 * t * slope[todo] + 10 * np.finfo(logits.dtype).eps * np.abs(value[todo])
        accepted = falls & (np.abs(slope_at) <= 0.9 * np.abs(slope[todo]))
        far = ~falls | (slope_at > 0)
        high[todo] = np.where(far, t, high[todo])
        slope_high[todo] = np.where(far, slope_at, slope_high[todo])
        low[todo] = np.where(far, low[todo], t)
        slope_low[todo] = np.where(far, slope_low[todo], slope_at)
        todo = todo[~accepted]
        if not len(todo):
            break
        span, slope_change = high[todo] - low[todo], slope_high[todo] - slope_low[todo]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.clip(np.where(slope_change > 0, -slope_low[todo] / slope_change, 0.5), 0.1, 0.9)
            length[todo] = np.where(np.isinf(high[todo]), 2 * length[todo], low[todo] + share * span)
    return length, new_value, new_logits, residual
