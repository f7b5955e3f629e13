"""A summary of each label of a store.

Shapes: N images.
"""

import numpy as np
from numpy.typing import NDArray

from encoders.doctor.report import Distribution, LabelKind, LabelSummary
from encoders.runtime.arrays import Array
from encoders.store.store import Store


def summarise_labels(store: Store, splits: Array, groups: list[list[int]]) -> list[LabelSummary]:
    """For every label: the number of known values, their distribution (also by split), and the number of groups of identical images
    with different values.

    splits: (N,), "" if unknown.  groups: rows of identical images."""
    return [summarise_label(name, store.labels(name), store.classes(name), splits, groups) for name in store.label_names()]


def summarise_label(
    name: str, values: NDArray[np.float32], classes: list[str] | None, splits: Array, groups: list[list[int]]
) -> LabelSummary:
    """The summary of one label.  values: (N,), NaN = unknown.  classes: names of the values; None: numbers."""
    known = ~np.isnan(values)
    distinct = np.unique(values[known])
    kind: LabelKind = "text" if classes else "yes/no" if set(distinct.tolist()) <= {0.0, 1.0} else "number"
    by_split = {str(split): label_distribution(values[splits == split], kind, classes) for split in np.unique(splits) if split}
    conflicts = sum(len(np.unique(values[rows][~np.isnan(values[rows])])) > 1 for rows in groups)
    return {
        "label": name,
        "kind": kind,
        "known": int(known.sum()),
        "unknown": int((~known).sum()),
        "values": len(distinct),
        "spread": label_distribution(values, kind, classes),
        "by_split": by_split,
        "conflicts": conflicts,
    }


def label_distribution(values: NDArray[np.float32], kind: LabelKind, classes: list[str] | None) -> Distribution:
    """Counts of classes, the number and fraction of positives, or the range of a number; {} if no value is known."""
    known = values[~np.isnan(values)]
    if not len(known):
        return {}
    if kind == "text" and classes:
        return {name: int((known == code).sum()) for code, name in enumerate(classes)}
    if kind == "yes/no":
        return {"positive": int(known.sum()), "prevalence": round(float(known.mean()), 4)}
    return {"min": float(known.min()), "mean": round(float(known.mean(dtype=np.float64)), 4), "max": float(known.max())}
