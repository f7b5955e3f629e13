"""Variance of an AUROC and of a difference of AUROCs when a patient has several images.

The variance is that of structural components summed within patients (Obuchowski 1997, Biometrics 53, eq. 4-7); with one image per patient
it equals that of DeLong (1988). The degrees of freedom are those of Satterthwaite for the variances of the two classes. The intervals are
in `area_interval` and `difference_interval`.

Shapes: N rows, P positives, M negatives, G patients, C labels.
"""

import numpy as np

from encoders.runtime.arrays import Array
from transfer.stats.patients import to_columns
from transfer.stats.placement_components import AreaComponents, has_one_class, placement_components, placement_values


def area_components(y: Array, s: Array, code: Array, n: int) -> AreaComponents | None:
    """The components of one label; None when it has a single class. y, s, code: (N,), code: patients as integers below n."""
    if has_one_class(y):
        return None
    known = ~np.isnan(y)
    placement = np.full(len(y), np.nan)
    placement[known] = placement_values(y[known] > 0.5, np.asarray(s[known], dtype=np.float64))
    return placement_components(y, placement, code, n)


def mean_components(parts: list[AreaComponents]) -> AreaComponents:
    """The components of the mean area over labels. Errors add within a patient, so labels of one patient need not be independent.

    The counts are the smallest of any label, so that the t quantile is conservative."""
    return AreaComponents(
        float(np.mean([p.area for p in parts])),
        np.mean([p.positive for p in parts], axis=0),
        np.mean([p.negative for p in parts], axis=0),
        min(p.n_positive for p in parts),
        min(p.n_negative for p in parts),
        max(p.n for p in parts),
    )


def area_variance(p: AreaComponents) -> tuple[float, float]:
    """Variance of the area, and its degrees of freedom (Satterthwaite over the two classes)."""
    a, b = float((p.positive**2).sum()), float((p.negative**2).sum())
    # Covariance from patients with rows of both classes, with Obuchowski's factor n / (n - 1) instead of those of the two classes.
    fewest = min(p.n_positive, p.n_negative)
    undo_factors = np.sqrt((1 - 1 / p.n_positive) * (1 - 1 / p.n_negative)) if fewest > 1 else np.nan
    undo_factors = 0.0 if fewest == 0 else undo_factors  # a metric with a single side (a recall)
    shared = 2 * float((p.positive * p.negative).sum()) * undo_factors * p.n / max(p.n - 1, 1)
    total = max(a + b + shared, 0.0)
    if not a + b > 0:
        return total, float(min(p.n_positive, p.n_negative) - 1)
    return total, (a + b) ** 2 / (a**2 / max(p.n_positive - 1, 1) + b**2 / max(p.n_negative - 1, 1))


def label_components(y: Array, s: Array, code: Array, n: int) -> list[AreaComponents]:
    """The components of every label with both classes. code: (N,) patients as integers below n."""
    y, s = to_columns(y), to_columns(s)
    all_labels = [area_components(y[:, c], s[:, c], code, n) for c in range(y.shape[1])]
    return [p for p in all_labels if p is not None]
