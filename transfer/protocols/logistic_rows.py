"""Standardised rows on the principal axes of their Gram matrix, read in blocks so that no copy of the features in float64 is made.

The features stay float32. A block of a few MB at a time is standardised in float64; the Gram matrix accumulates in float64, and the rotated
rows are stored in float32, whose rounding is that of the features themselves.

Shapes: N rows, D width, R axes (<= min(N, D)), B rows of a block.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.linalg import eigh
from scipy.linalg.blas import dsyrk

from encoders.runtime.arrays import Array, FloatArray

BLOCK_BYTES = 2 * 2**20  # of a block of rows in float64: stays in the cache between its conversion and its product
Pieces = Sequence[Array]  # features (N, D) as consecutive arrays of rows: train rows, or train and validation rows without a joined copy


def block_slices(n: int, row_bytes: int) -> Iterator[slice]:
    """Slices that cover range(n), each of at most BLOCK_BYTES, and at least one row."""
    step = max(1, BLOCK_BYTES // max(row_bytes, 1))
    return (slice(at, min(at + step, n)) for at in range(0, n, step))


def row_blocks(pieces: Pieces) -> Iterator[FloatArray]:
    """(B, D) float64 blocks of all rows, in order."""
    for x in pieces:
        for rows in block_slices(len(x), 8 * x.shape[1]):
            yield x[rows].astype(np.float64)


def map_rows(x: Array, w: Array, b: Array) -> FloatArray:
    """(M, K) float64 values x @ w + b of rows x (M, D), with products in float64. w: (D, K).  b: (K,)."""
    out = np.empty((len(x), w.shape[1]))
    for rows in block_slices(len(x), 8 * x.shape[1]):
        out[rows] = x[rows].astype(np.float64) @ w + b
    return out


def mean_and_inverse_std(pieces: Pieces) -> tuple[FloatArray, FloatArray]:
    """Mean and inverse standard deviation of every column, (D,) each; a constant column is scaled to 0."""
    n, width = sum(map(len, pieces)), pieces[0].shape[1]
    mean, square = np.zeros(width), np.zeros(width)
    for z in row_blocks(pieces):
        mean += z.sum(axis=0)
    mean /= n
    for z in row_blocks(pieces):
        z -= mean
        square += np.einsum("bd,bd->d", z, z)
    std = np.sqrt(square / n)
    # float32 features of a dead unit differ from their mean by rounding only: 1e-6 of the mean is below their resolution.
    alive = std > 1e-6 * np.abs(mean)
    return mean, np.where(alive & (std > 0), 1 / np.where(std > 0, std, 1), 0.0)


def rotate_rows(pieces: Pieces, mean: Array, scale: Array, rough: bool) -> tuple[Array, Callable[[FloatArray], FloatArray]]:
    """Rotated rows with a column of ones (N, R + 1) float32, and the map of their weights (R, ...) to those of the columns (D, ...).

    The columns are standardised: (x - mean) * scale.  rough: with N >= D, axes whose angles are accurate to 1e-6 (float32), in half the
    time. The rows are rotated onto these same axes, so that the loss is exact and |w|^2 has a relative error of 1e-6."""
    n, width = sum(map(len, pieces)), pieces[0].shape[1]
    return _rotate_tall(pieces, mean, scale, n, rough) if n >= width else _rotate_wide(pieces, mean, scale, n)


def _rotate_tall(pieces: Pieces, mean: Array, scale: Array, n: int, rough: bool) -> tuple[Array, Callable[[FloatArray], FloatArray]]:
    """By the Gram matrix of the columns, (D, D)."""
    gram = np.zeros((len(mean), len(mean)), order="F")
    for z in row_blocks(pieces):
        z -= mean
        z *= scale
        gram = dsyrk(1.0, z.T, beta=1.0, c=gram, overwrite_c=True)  # in place, the upper triangle
    if rough:
        gram = gram.astype(np.float32, order="F")
    axes = eigh(gram, lower=False, driver="evd", overwrite_a=True, check_finite=False)[1].astype(np.float64, order="C")
    del gram
    a = np.ones((n, len(mean) + 1), dtype=np.float32)
    lengths, at = np.zeros(len(mean)), 0
    for z in row_blocks(pieces):
        z -= mean
        z *= scale
        rotated = z @ axes
        lengths += np.einsum("nr,nr->r", rotated, rotated)
        a[at : at + len(z), :-1] = rotated
        at += len(z)
    keep = _numerical_rank(lengths)
    if not keep.all():
        a, axes = _keep_columns(a, np.flatnonzero(np.r_[keep, True])), axes[:, keep]
    return a, lambda theta: np.tensordot(axes, theta, axes=1)


def _keep_columns(a: Array, columns: Array) -> Array:
    """The given ascending columns of `a`, moved within it: a copy would be as large as the features."""
    for rows in block_slices(len(a), 8 * a.shape[1]):
        a[rows, : len(columns)] = a[rows][:, columns]
    return a[:, : len(columns)]


def _rotate_wide(pieces: Pieces, mean: Array, scale: Array, n: int) -> tuple[Array, Callable[[FloatArray], FloatArray]]:
    """By the Gram matrix of the rows, (N, N): its eigenvectors times the lengths of the axes are the rotated rows."""
    gram = np.zeros((n, n), order="F")
    for columns in block_slices(len(mean), 8 * n):
        z = np.concatenate([x[:, columns] for x in pieces]).astype(np.float64)
        z = (z - mean[columns]) * scale[columns]
        gram = dsyrk(1.0, z, beta=1.0, c=gram, overwrite_c=True)
    lengths, vectors = eigh(gram, lower=False, driver="evd", overwrite_a=True, check_finite=False)
    keep = _numerical_rank(lengths)
    lengths, vectors = lengths[keep], vectors[:, keep]
    a = np.concatenate([vectors * np.sqrt(lengths), np.ones((n, 1))], axis=1, dtype=np.float32, casting="same_kind")

    def to_columns(theta: FloatArray) -> FloatArray:
        """z.T @ (vectors / sqrt(lengths)) @ theta, without the axes themselves, which are as large as the features."""
        flat = (vectors / np.sqrt(lengths)) @ theta.reshape(len(theta), math.prod(theta.shape[1:]))  # (N, ...), perhaps of no axis
        out, at = np.zeros((len(mean), flat.shape[1])), 0
        for z in row_blocks(pieces):
            z -= mean
            z *= scale
            out += z.T @ flat[at : at + len(z)]
            at += len(z)
        return out.reshape(len(mean), *theta.shape[1:])

    return a, to_columns


def _numerical_rank(lengths: FloatArray) -> Array:
    """(D,) the axes that are longer than rounding."""
    keep: Array = lengths > lengths.max(initial=0) * len(lengths) * np.finfo(float).eps
    return keep
