"""How unlike the train images an image is, by the features of a network: Mahalanobis distances and the distance to the k-th neighbour.

- `mahalanobis`: to the nearest class mean, with one covariance for all classes (Lee et al. 2018, arXiv:1807.03888, eq. 1 and 2; of the last
  features alone, without input noise).
- `relative`: the square of that distance less the square of the distance to the mean of all images with their covariance, which removes
  directions that say nothing about the classes (Ren et al. 2021, arXiv:2106.09022).
- `knn`: to the k-th nearest train image, features scaled to length 1 (Sun et al. 2022, arXiv:2204.06507).

Covariances are shrunk towards a multiple of the identity by the share of Ledoit and Wolf 2004 (J Multivar Anal 88, 365), so that there is
an inverse with fewer images than features.

Shapes: N train images, M images, D width, K classes, R directions with a variance of their own.
"""

from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from encoders.runtime.arrays import Array, FloatArray, IntArray

OutlierScore: TypeAlias = Literal["mahalanobis", "relative", "knn"]
NEIGHBOURS = 10  # the k of `knn`; fewer where there are fewer train images
LEAST_VARIANCE = 1e-12  # of a direction, as a share of the mean variance: features that never vary have no finite distance otherwise
DISTANCE_CHUNK = 2**22  # float64 values of an intermediate array: 32 MB


class Gaussians(NamedTuple):
    """Normal distributions with one covariance.  mean: (K, D).  basis: (R, D) orthonormal rows.  variance: (R,) in these directions.

    rest: the variance in all other directions."""

    mean: FloatArray
    basis: FloatArray
    variance: FloatArray
    rest: float


class Shrinkage(NamedTuple):
    """(1 - share) * covariance + share * mu * identity."""

    share: float
    mu: float


class TrainFeatures(NamedTuple):
    """What distances are measured to.  classes: by class.  whole: of all images.  unit: (N, D) the features scaled to length 1."""

    classes: Gaussians
    whole: Gaussians
    unit: FloatArray


def group_by_class(y: Array, kind: str) -> IntArray:
    """(N,) the class of each image; 0 for all images of a task with several labels, which have no one class.  y: (N, C) without NaN."""
    if kind == "multilabel":
        return np.zeros(len(y), dtype=np.int64)
    return np.asarray(np.argmax(y, axis=1) if kind == "multiclass" else np.asarray(y)[:, 0] > 0.5).astype(np.int64)


def fit_train_features(x: Array, group: IntArray) -> TrainFeatures:
    """The distributions of train features.  x: (N, D).  group: (N,) class numbers from 0; all 0 where there are no classes."""
    x = np.asarray(x, dtype=np.float64)
    classes, shrunk = fit_gaussians(x, group)
    # Shrunk alike: otherwise the difference of the two distances of a far image would be that of their shrinkage.
    whole, _ = fit_gaussians(x, np.zeros(len(x), dtype=np.int64), shrunk)
    return TrainFeatures(classes, whole, scale_to_unit(x))


def fit_gaussians(x: FloatArray, group: IntArray, shrunk: Shrinkage | None = None) -> tuple[Gaussians, Shrinkage]:
    """Class means, and the shrunk covariance of the deviations from them; a class without images has none.

    shrunk: how much; None: as Ledoit and Wolf."""
    numbers = np.unique(group)
    mean = np.stack([x[group == number].mean(axis=0) for number in numbers])
    apart = x - mean[np.searchsorted(numbers, group)]
    n, d = apart.shape
    small = apart @ apart.T if n < d else apart.T @ apart  # the smaller of the two has the same eigenvalues
    values, vectors = np.linalg.eigh(small / n)
    kept = values > max(float(values[-1]), 0.0) * np.finfo(np.float64).eps * max(n, d)
    values, vectors = values[kept], vectors[:, kept]
    basis = (apart.T @ vectors / np.sqrt(n * values)).T if n < d else vectors.T
    share, mu = shrunk or choose_shrinkage(apart, values)
    least = LEAST_VARIANCE * mu
    variance = np.maximum((1 - share) * values + share * mu, least)
    return Gaussians(mean, basis, variance, max(share * mu, least)), Shrinkage(share, mu)


def choose_shrinkage(apart: FloatArray, values: FloatArray) -> Shrinkage:
    """That of Ledoit and Wolf.  apart: (N, D) with mean 0.  values: the eigenvalues of their covariance that are not 0."""
    n, d = apart.shape
    mu = max(float(values.sum()) / d, float(np.finfo(np.float64).tiny))
    square = float((values**2).sum())
    delta = (square - d * mu**2) / d
    beta = (float(((apart**2).sum(axis=1) ** 2).sum()) / n - square) / (n * d)
    return Shrinkage(1.0 if delta <= 0 else min(max(beta, 0.0), delta) / delta, mu)


def square_distance(x: Array, g: Gaussians) -> FloatArray:
    """(M,) the square of the Mahalanobis distance to the nearest mean.  x: (M, D)."""
    out: FloatArray = np.empty(len(x))
    step = max(1, DISTANCE_CHUNK // g.mean.size)
    for at in range(0, len(x), step):
        apart = np.asarray(x[at : at + step], dtype=np.float64)[:, None] - g.mean  # (m, K, D)
        along = apart @ g.basis.T  # (m, K, R)
        others = np.maximum((apart**2).sum(axis=-1) - (along**2).sum(axis=-1), 0.0)
        out[at : at + step] = ((along**2 / g.variance).sum(axis=-1) + others / g.rest).min(axis=1)
    return out


def scale_to_unit(x: Array) -> FloatArray:
    """(N, D) rows of length 1; rows of zeros stay."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(length > 0, length, 1.0), dtype=np.float64)


def neighbour_distance(x: Array, unit: Array, k: int = NEIGHBOURS) -> FloatArray:
    """(M,) the distance of each row of x (M, D), scaled to length 1, to the k-th nearest row of `unit` (N, D)."""
    k = min(k, len(unit))
    out: FloatArray = np.empty(len(x))
    unit = np.asarray(unit, dtype=np.float64)
    squares, step = (unit**2).sum(axis=1), max(1, DISTANCE_CHUNK // max(unit.shape))
    for at in range(0, len(x), step):
        own = scale_to_unit(np.asarray(x[at : at + step], dtype=np.float64))
        square = (own**2).sum(axis=1, keepdims=True) + squares - 2 * own @ unit.T
        out[at : at + step] = np.sqrt(np.maximum(np.partition(square, k - 1, axis=1)[:, k - 1], 0.0))
    return out


def score_outliers(x: Array, train: TrainFeatures, kind: OutlierScore) -> FloatArray:
    """(M,) how unlike the train images each image is, by its features x (M, D)."""
    if kind == "knn":
        return neighbour_distance(x, train.unit)
    own = square_distance(x, train.classes)
    return np.sqrt(own) if kind == "mahalanobis" else own - square_distance(x, train.whole)
