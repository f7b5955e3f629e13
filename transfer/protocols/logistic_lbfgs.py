"""L-BFGS on many L2 logistic regressions that share their rows, each with its own C and label.

Logits are linear along a step, so a line search needs no matrix product. The rows are float32; in float64, products convert one block of
rows at a time. Arrays over rows are the logits, their change along the step and the residual; all else is computed in blocks.

Shapes: N rows, R axes, C labels or classes, P problems that are still active, K columns of a problem (classes, or 1), B rows of a block.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from encoders.runtime.arrays import Array, BoolArray, FloatArray
from transfer.protocols.logistic_rows import block_slices

LBFGS_MEMORY = 10  # update pairs that L-BFGS keeps
LINE_SEARCH_TRIES = 12  # points of a line search; nearly always the first is accepted


@dataclass
class LogisticBlock:
    """P problems on the same rows.

    a: (N, R + 1) float32, the last column ones.  y: (N, C) float32, NaN = unknown.  c, label: (P,) C and label of each problem (label 0 if
    multi-class).  dtype: of the products."""

    a: Array
    y: Array
    c: Array
    label: Array
    k: int
    dtype: DTypeLike = np.float64

    def __post_init__(self) -> None:
        known = np.array([len(self.y)]) if self.k > 1 else (~np.isnan(self.y)).sum(axis=0)
        self.full = bool((known == len(self.y)).all())
        self.n = np.maximum(known, 1)[self.label]  # (P,)
        positives = np.asarray(np.nansum(self.y, axis=0, dtype=np.float64))
        hits = positives[None] if self.k > 1 else positives[self.label][:, None]
        self.ridge = (
            np.concatenate([np.ones(self.a.shape[1] - 1), [0.0]])[:, None, None] / (self.c * self.n)[None, :, None]
        )  # (R + 1, P, 1)
        # With a single known class there is nothing to learn, and the intercept would diverge.
        self.void = (self.k == 1) & ((hits[:, 0] == 0) | (hits[:, 0] == self.n))

    def only(self, keep: Array) -> "LogisticBlock":
        """The problems `keep`."""
        return LogisticBlock(self.a, self.y, self.c[keep], self.label[keep], self.k, self.dtype)

    def slices(self) -> Iterator[slice]:
        """Blocks of rows, small enough for a float64 copy of their features."""
        return block_slices(len(self.a), 8 * self.a.shape[1])

    def logits(self, theta: Array) -> Array:
        """(N, P, K) logits."""
        flat = theta.reshape(len(theta), -1).astype(self.dtype, copy=False)
        out = np.empty((len(self.a), flat.shape[1]), dtype=self.dtype)
        for rows in self.slices():
            np.matmul(self.a[rows].astype(self.dtype, copy=False), flat, out=out[rows])
        return out.reshape(len(self.a), -1, self.k)

    def gradient(self, theta: Array, residual: Array) -> Array:
        """(R + 1, P, K) gradient from the residuals (N, P, K)."""
        flat = np.zeros((self.a.shape[1], theta.shape[1] * self.k))
        for rows in self.slices():
            flat += self.a[rows].astype(self.dtype, copy=False).T @ residual[rows].reshape(-1, flat.shape[1])
        gradient: Array = flat.reshape(theta.shape) / self.n[None, :, None] + self.ridge * theta
        return gradient

    def diagonal_hessian(self, logits: Array) -> Array:
        """(R + 1, P, K) diagonal of the Hessian at the logits."""
        flat = np.zeros((self.a.shape[1], logits.shape[1] * self.k))
        for rows in self.slices():
            z = logits[rows]
            if self.k > 1:
                p = np.exp(z - z.max(axis=2, keepdims=True))
                p /= p.sum(axis=2, keepdims=True)
                spread = p * (1 - p)
            else:
                small = np.exp(-np.abs(z))
                spread = small / (1 + small) ** 2
                if not self.full:
                    spread = spread * ~np.isnan(self.y[rows][:, self.label])[..., None]
            flat += np.square(self.a[rows], dtype=self.dtype).T @ spread.reshape(-1, flat.shape[1])
        hessian: Array = flat.reshape(len(flat), -1, self.k) / self.n[None, :, None] + self.ridge
        return hessian

    def loss(self, logits: Array, which: Array, rows: slice) -> tuple[Array, Array]:
        """Sum of losses (P,) and residual, probability minus label (B, P, K), of the problems `which` at logits (B, P, K) of some rows."""
        if self.k > 1:
            y = self.y[rows]
            top = logits.max(axis=2, keepdims=True)
            p = logits - top
            np.exp(p, out=p)
            total = np.einsum("npk->np", p)
            p /= total[:, :, None]
            own = np.einsum("npk,nk->np", logits, y)
            p -= y[:, None]
            return (np.log(total) + top[..., 0] - own).sum(axis=0, dtype=np.float64), p
        given = self.y[rows][:, self.label[which]]
        z, y = logits[..., 0], given if self.full else np.nan_to_num(given)
        small = np.exp(-np.abs(z))
        one = z.dtype.type(1)
        loss = np.log1p(small) + np.maximum(z, 0) - y * z
        near = one / (one + small)  # probability of the likelier class
        far = small * near
        # Not probability minus label: where both are nearly 1 the difference would lose its digits.
        positive = z >= 0
        residual = (one - y) * np.where(positive, near, far) - y * np.where(positive, far, near)
        if not self.full:
            known = ~np.isnan(given)
            loss, residual = loss * known, residual * known
        return loss.sum(axis=0, dtype=np.float64), residual[..., None]


def batched_dot(a: Array, b: Array) -> Array:
    """(P,) inner product for every problem. a, b: (R + 1 or N, P, K)."""
    product: Array = np.einsum("rpk,rpk->p", a, b)
    return product


def lbfgs(block: LogisticBlock, theta: Array, tolerance: float, max_iter: int) -> tuple[Array, int, BoolArray]:
    """The solutions (R + 1, P, K), the number of steps, and which problems converged (P,). A converged one is not computed further.

    A problem has converged when its estimated excess loss is at most `tolerance` times its loss."""
    out, converged, place = theta.copy(), np.ones(theta.shape[1], dtype=bool), np.arange(theta.shape[1])
    if block.void.any():
        keep = np.flatnonzero(~block.void)
        block, theta, place = block.only(keep), theta[:, keep], place[keep]
    if not len(place):
        return out, 0, converged
    logits = block.logits(theta)
    value, _, residual = evaluate(block, logits, None, np.zeros(len(place)), np.arange(len(place)))
    value = value + 0.5 * batched_dot(block.ridge * theta, theta)
    grad = block.gradient(theta, residual)
    hessian = block.diagonal_hessian(logits)
    pairs: list[tuple[Array, Array, Array]] = []
    fell = np.full(len(place), np.inf)  # how much the last step lowered the loss
    for step in range(max_iter + 1):
        direction = -apply_inverse_hessian(grad, pairs, hessian)
        slope = batched_dot(grad, direction)
        # Half the squared Newton decrement, with the Hessian that L-BFGS knows, estimates the distance to the minimum.
        close = -0.5 * slope <= tolerance * value
        stuck = fell <= np.finfo(block.dtype).eps * value  # no digits left; converged only if close
        active = np.flatnonzero(~(close | stuck))
        if len(active) < len(place):
            out[:, place], converged[place] = theta, close
            if not len(active):
                return out, step, converged
            block, place, theta, grad = block.only(active), place[active], theta[:, active], grad[:, active]
            direction, slope, logits, value = direction[:, active], slope[active], logits[:, active], value[active]
            hessian = hessian[:, active]
            pairs = [(s[:, active], g[:, active], r[active]) for s, g, r in pairs]
        if step == max_iter:
            break
        del residual
        before = value
        length, value, residual = line_search(block, theta, direction, logits, value, slope)
        fell = before - value
        move = length[None, :, None] * direction
        theta = theta + move
        new_grad = block.gradient(theta, residual)
        curvature = batched_dot(move, new_grad - grad)
        rho = np.where(curvature > 0, 1 / np.where(curvature > 0, curvature, 1), 0.0)
        pairs = [*pairs[1 - LBFGS_MEMORY :], (move, new_grad - grad, rho)]
        grad = new_grad
    out[:, place] = theta
    converged[place] = False
    return out, max_iter, converged


def apply_inverse_hessian(grad: Array, pairs: list[tuple[Array, Array, Array]], hessian: Array) -> Array:
    """The L-BFGS approximation of the inverse Hessian, times the gradient. Source: Nocedal and Wright, algorithm 7.4.

    hessian: (R + 1, P, K) diagonal at the start, on the principal axes of the rows nearly the whole of it."""
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


def evaluate(
    block: LogisticBlock, logits: Array, change: Array | None, length: FloatArray, which: Array, residual: Array | None = None
) -> tuple[FloatArray, FloatArray, Array]:
    """Mean loss (P,) of the problems `which` at logits + length * change, its slope in the length (P,), and the residual (N, P, K).

    residual: of all problems, of which the columns `which` are replaced; None: a new array."""
    whole = len(which) == logits.shape[1]
    residual = np.empty_like(logits) if residual is None else residual
    value, slope, t = np.zeros(len(which)), np.zeros(len(which)), length.astype(logits.dtype)[None, :, None]
    for rows in block_slices(len(logits), 8 * len(which) * block.k * 8):  # about eight temporary arrays
        at = logits[rows] if whole else logits[rows][:, which]
        if change is not None:
            along = change[rows] if whole else change[rows][:, which]
            at = at + t * along
        loss, r = block.loss(at, which, rows)
        value += loss
        if change is not None:
            slope += batched_dot(r, along)
        if whole:
            residual[rows] = r
        else:
            residual[rows, which] = r
    return value / block.n[which], slope / block.n[which], residual


def line_search(
    block: LogisticBlock, theta: Array, direction: Array, logits: Array, value: Array, slope: Array
) -> tuple[FloatArray, FloatArray, Array]:
    """Step lengths (P,) that satisfy the Wolfe conditions, with value and residual there; moves `logits` there too. Elementwise only.

    The loss along the direction is convex: while it still falls steeply the step doubles; after overshooting, the secant of the slopes at
    both ends of the bracket gives the next point."""
    change = block.logits(direction)
    length, low, high = np.ones(len(value)), np.zeros(len(value)), np.full(len(value), np.inf)
    slope_low, slope_high = slope.copy(), np.zeros(len(value))
    ridge_direction = block.ridge * direction
    reg = [batched_dot(block.ridge * theta, theta), batched_dot(block.ridge * theta, direction), batched_dot(ridge_direction, direction)]
    new_value, residual = value.copy(), np.empty_like(logits)
    todo = np.arange(len(value))
    for attempt in range(LINE_SEARCH_TRIES + 1):
        if attempt == LINE_SEARCH_TRIES:  # no step was accepted: the longest that decreases the loss, perhaps 0
            length[todo] = low[todo]
        t = length[todo]
        loss, data_slope, residual = evaluate(block, logits, change, t, todo, residual)
        value_at = loss + 0.5 * reg[0][todo] + t * reg[1][todo] + 0.5 * t**2 * reg[2][todo]
        slope_at = data_slope + reg[1][todo] + t * reg[2][todo]
        new_value[todo] = value_at
        # Close to the optimum rounding hides the decrease.
        falls = value_at <= value[todo] + 1e-4 * t * slope[todo] + 10 * np.finfo(logits.dtype).eps * np.abs(value[todo])
        accepted = falls & (np.abs(slope_at) <= 0.9 * np.abs(slope[todo]))
        far = ~falls | (slope_at > 0)
        high[todo] = np.where(far, t, high[todo])
        slope_high[todo] = np.where(far, slope_at, slope_high[todo])
        low[todo] = np.where(far, low[todo], t)
        slope_low[todo] = np.where(far, slope_low[todo], slope_at)
        todo = todo[~accepted]
        if not len(todo) or attempt == LINE_SEARCH_TRIES:
            break
        span, slope_change = high[todo] - low[todo], slope_high[todo] - slope_low[todo]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.clip(np.where(slope_change > 0, -slope_low[todo] / slope_change, 0.5), 0.1, 0.9)
            length[todo] = np.where(np.isinf(high[todo]), 2 * length[todo], low[todo] + share * span)
    for rows in block_slices(len(logits), 8 * logits.shape[1] * block.k):
        logits[rows] += length.astype(logits.dtype)[None, :, None] * change[rows]
    return length, new_value, residual
