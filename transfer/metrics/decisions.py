"""Metrics of decisions, all from confusion matrices, so that a thousand weightings cost one matrix product.

A multi-class task decides by argmax and has one confusion matrix over its classes; binary and multi-label tasks decide each label by a
threshold and have one 2 x 2 matrix per label. Results are (T,) or (B, T): T = 1 table for a multi-class task, otherwise one per label.

Shapes: N rows, C label columns, K classes, T tables, B weightings.
"""

from collections.abc import Callable, Sequence

import numpy as np

from encoders.runtime.arrays import Array, FloatArray

Matrix = FloatArray  # (..., K, K): true class by predicted class


def decide_classes(y: Array, s: Array, kind: str, threshold: float | Array = 0.5) -> list[tuple[Array, Array, int]]:
    """For every table: true codes (N,), -1 where unknown; predicted codes (N,); number of classes. threshold: one, or one per label."""
    y, s = np.asarray(y), np.asarray(s)
    if kind == "multiclass":
        known = ~np.isnan(y).any(axis=1)
        return [(np.where(known, np.nan_to_num(y).argmax(axis=1), -1), s.argmax(axis=1), y.shape[1])]
    cut = np.broadcast_to(threshold, (y.shape[1],))
    return [(np.where(np.isnan(y[:, c]), -1, y[:, c] > 0.5).astype(int), (s[:, c] >= cut[c]).astype(int), 2) for c in range(y.shape[1])]


def confusion_matrix(true: Array, predicted: Array, n_classes: int, weight: Array | None = None) -> Matrix:
    """(K, K) or (B, K, K) weight of every (true, predicted) pair; rows with true = -1 are ignored. weight: (N, B)."""
    n, known = n_classes, true >= 0
    cell = true[known] * n + predicted[known]
    if weight is None:
        return np.bincount(cell, minlength=n * n).reshape(n, n).astype(np.float64)
    is_cell = cell[:, None] == np.arange(n * n)  # (N, K * K)
    return weighted_counts(is_cell, weight[known] if not known.all() else weight).reshape(-1, n, n)


def weighted_counts(rows: Array, weight: Array) -> FloatArray:
    """(B, J) weight of the rows that each column selects, as one matrix product. rows: (N, J) bool.  weight: (N, B).

    float32 weights are the counts of a bootstrap, which single precision adds exactly up to 2^24."""
    single = weight.dtype == np.float32 and len(weight) * weight.max(initial=0) < 2**24
    kind = np.float32 if single else np.float64
    return np.asarray(weight.T.astype(kind, copy=False) @ rows.astype(kind), dtype=np.float64)


def _metric_of_confusion(
    metric: Callable[[Matrix], Array], y: Array, s: Array, kind: str, threshold: float | Array, weight: Array | None
) -> FloatArray:
    tables = [metric(confusion_matrix(true, predicted, n, weight)) for true, predicted, n in decide_classes(y, s, kind, threshold)]
    return np.stack(tables, axis=-1)


def accuracy(y: Array, s: Array, kind: str = "multilabel", threshold: float | Array = 0.5, weight: Array | None = None) -> Array:
    """The share of correct decisions. It is high for rare labels: compare it with the majority class."""
    return _metric_of_confusion(accuracy_from_confusion, y, s, kind, threshold, weight)


def balanced_accuracy(y: Array, s: Array, kind: str = "multilabel", threshold: float | Array = 0.5, weight: Array | None = None) -> Array:
    """The mean recall over the classes that occur; NaN for a label with a single known class."""
    return _metric_of_confusion(balanced_accuracy_from_confusion, y, s, kind, threshold, weight)


def macro_f1(y: Array, s: Array, kind: str = "multilabel", threshold: float | Array = 0.5, weight: Array | None = None) -> Array:
    """Mean F1 over the classes that occur or are predicted; for a binary label the F1 of its positive class."""
    return _metric_of_confusion(macro_f1_from_confusion, y, s, kind, threshold, weight)


def precision(y: Array, s: Array, kind: str = "multilabel", threshold: float | Array = 0.5, weight: Array | None = None) -> Array:
    """The share of positive decisions that are correct; multi-class: its mean over the predicted classes. NaN if there is none."""
    return _metric_of_confusion(precision_from_confusion, y, s, kind, threshold, weight)


def mcc(y: Array, s: Array, kind: str = "multilabel", threshold: float | Array = 0.5, weight: Array | None = None) -> Array:
    """Matthews correlation coefficient of true and predicted class. Multi-class form: Gorodkin 2004, eq. 8. NaN if either is constant."""
    return _metric_of_confusion(mcc_from_confusion, y, s, kind, threshold, weight)


def kappa(y: Array, s: Array, kind: str = "multilabel", threshold: float | Array = 0.5, weight: Array | None = None) -> Array:
    """Cohen's kappa: agreement beyond chance."""
    return _metric_of_confusion(kappa_from_confusion, y, s, kind, threshold, weight)


def quadratic_kappa(y: Array, s: Array, order: Sequence[int], weight: Array | None = None) -> Array:
    """(1,) or (B, 1) Cohen's kappa of a multi-class task with disagreements weighted by the squared distance of the classes.

    order: (C,) columns of y from the lowest to the highest class; distances are differences of positions in it.
    Raises ValueError unless it names every column once.  Source: Cohen 1968."""
    columns = np.asarray(order, dtype=int)
    if sorted(columns.tolist()) != list(range(np.shape(y)[1])):
        raise ValueError(f"the order {list(order)} does not name each of the {np.shape(y)[1]} columns once")

    def metric(m: Matrix) -> Array:
        return kappa_from_confusion(m[..., columns, :][..., columns], power=2)

    return _metric_of_confusion(metric, y, s, "multiclass", 0.5, weight)


def sensitivity(y: Array, s: Array, kind: str = "multilabel", threshold: float | Array = 0.5, weight: Array | None = None) -> Array:
    """The share of positives that are predicted positive, per label; not for multi-class tasks. NaN without a positive."""
    return _metric_of_confusion(lambda m: recall_from_confusion(m)[..., 1], y, s, kind, threshold, weight)


def specificity(y: Array, s: Array, kind: str = "multilabel", threshold: float | Array = 0.5, weight: Array | None = None) -> Array:
    """The share of negatives that are predicted negative, per label; not for multi-class tasks. NaN without a negative."""
    return _metric_of_confusion(lambda m: recall_from_confusion(m)[..., 0], y, s, kind, threshold, weight)


def recall_from_confusion(m: Matrix) -> Array:
    """(..., K) recall of every class."""
    return _ratio(np.diagonal(m, axis1=-2, axis2=-1), m.sum(axis=-1))


def accuracy_from_confusion(m: Matrix) -> Array:
    return _ratio(np.trace(m, axis1=-2, axis2=-1), m.sum(axis=(-2, -1)))


def balanced_accuracy_from_confusion(m: Matrix) -> Array:
    single_class = (m.sum(axis=-1) > 0).sum(axis=-1) < 2
    return np.where(single_class, np.nan, _mean_known(recall_from_confusion(m)))


def macro_f1_from_confusion(m: Matrix) -> Array:
    f1 = _ratio(2 * np.diagonal(m, axis1=-2, axis2=-1), m.sum(axis=-1) + m.sum(axis=-2))
    return f1[..., 1] if m.shape[-1] == 2 else _mean_known(f1)


def precision_from_confusion(m: Matrix) -> Array:
    value = _ratio(np.diagonal(m, axis1=-2, axis2=-1), m.sum(axis=-2))
    return value[..., 1] if m.shape[-1] == 2 else _mean_known(value)


def mcc_from_confusion(m: Matrix) -> Array:
    true, predicted, n = m.sum(axis=-1), m.sum(axis=-2), m.sum(axis=(-2, -1))
    covariance = np.trace(m, axis1=-2, axis2=-1) * n - (true * predicted).sum(axis=-1)
    return _ratio(covariance, np.sqrt((n**2 - (true**2).sum(axis=-1)) * (n**2 - (predicted**2).sum(axis=-1))))


def kappa_from_confusion(m: Matrix, power: int = 0) -> Array:
    """power: 0, all disagreements have the same weight; 2, the squared distance of the classes, which are in order."""
    k = np.arange(m.shape[-1])
    distance = np.abs(k[:, None] - k[None, :])
    cost = (distance > 0).astype(float) if power == 0 else distance.astype(float) ** power
    by_chance = m.sum(axis=-1)[..., :, None] * m.sum(axis=-2)[..., None, :] / np.maximum(m.sum(axis=(-2, -1)), 1e-300)[..., None, None]
    return np.asarray(1.0 - _ratio((cost * m).sum(axis=(-2, -1)), (cost * by_chance).sum(axis=(-2, -1))))


def _ratio(a: Array, b: Array) -> Array:
    """a / b, NaN where b is 0."""
    ratio: Array = np.divide(a, b, out=np.full(np.broadcast_shapes(np.shape(a), np.shape(b)), np.nan), where=np.asarray(b) > 0)
    return ratio


def _mean_known(values: Array) -> Array:
    """Mean over the last axis, ignoring NaN; NaN if all values are."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1).astype(float))
