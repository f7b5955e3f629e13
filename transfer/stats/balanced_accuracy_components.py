"""Balanced accuracy and what the rows of each patient contribute to its error.

Balanced accuracy is the mean recall over classes. A binary label has one pair of classes, the recalls of which are the two sides of its
components. A multi-class task has one set of components for each class, with a single side; their mean is the balanced accuracy.

Shapes: N rows, G patients, C labels or classes.
"""

import numpy as np

from encoders.runtime.arrays import Array, FloatArray
from transfer.metrics import decide_classes
from transfer.stats.patients import count_codes
from transfer.stats.placement_components import AreaComponents, sum_by_patient


def measure_balanced_accuracies(
    y: Array, s: Array, code: Array, n: int, *, kind: str, threshold: float | Array = 0.5
) -> list[AreaComponents | None]:
    """The components of the balanced accuracy of every label, or of the recall of every class of a multi-class task.

    y, s: (N, C).  code: (N,) patients below n.  threshold: one, or one per label; not used for a multi-class task, which decides by argmax.
    None for a label with a single class, and for a class without rows."""
    tables = decide_classes(y, s, kind, threshold)
    if kind == "multiclass":
        true, predicted, classes = tables[0]
        if len(np.unique(true[true >= 0])) < 2:
            return [None] * classes
        return [recall_components(true, predicted, c, code, n) for c in range(classes)]
    return [_binary_components(true, predicted, code, n) for true, predicted, _ in tables]


def recall_components(true: Array, predicted: Array, label: int, code: Array, n: int) -> AreaComponents | None:
    """The components of the recall of class `label`; None without rows of it. true, predicted, code: (N,); true is -1 where unknown.

    There is no second side: `negative` and `n_negative` are 0."""
    rows = true == label
    if not rows.any():
        return None
    recall, side, count = _recall_side(predicted[rows] == label, code[rows], n)
    return AreaComponents(recall, side, np.zeros(n), count, 0, count)


def _binary_components(true: Array, predicted: Array, code: Array, n: int) -> AreaComponents | None:
    positive, negative = true == 1, true == 0
    if not positive.any() or not negative.any():
        return None
    sensitivity, high, n_positive = _recall_side(predicted[positive] == 1, code[positive], n)
    specificity, low, n_negative = _recall_side(predicted[negative] == 0, code[negative], n)
    patients = count_codes(code[positive | negative], n)
    return AreaComponents((sensitivity + specificity) / 2, high / 2, low / 2, n_positive, n_negative, patients)


def _recall_side(right: Array, code: Array, n: int) -> tuple[float, FloatArray, int]:
    """The recall of one class, the contribution of each patient to its error (n,), and the number of patients. right, code: (rows,)."""
    recall = float(right.mean())
    side, patients = sum_by_patient((right - recall) / len(right), code, n)
    return recall, side, patients
