"""The labels of a store, one line each.

Shapes: N images.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.store.store import Store


def summarise_labels(store: Store, splits: NDArray[Any], groups: list[list[int]]) -> list[dict[str, Any]]:
    """For every label: how many images have it, how its values are spread, by split too, and how many groups of identical images
    (`groups`) disagree."""
    return [summarise_label(name, store.labels(name), store.classes(name), splits, groups) for name in store.label_names()]


def summarise_label(
    name: str, values: NDArray[np.float32], classes: list[str] | None, splits: NDArray[Any], groups: list[list[int]]
) -> dict[str, Any]:
    """One line of the table; values: (N,), NaN = unknown."""
    known = ~np.isnan(values)
    distinct = np.unique(values[known])
    kind = "text" if classes else "yes/no" if set(distinct.tolist()) <= {0.0, 1.0} else "number"
    by_split = {str(split): label_distribution(values[splits == split], kind, classes) for split in np.unique(splits) if split}
    conflicts = sum(len(np.unique(values[rows][~np.isnan(values[rows])])) > 1 for rows in groups)
    of = {"label": name, "kind": kind, "known": int(known.sum()), "unknown": int((~known).sum()), "values": len(distinct)}
    return of | {"spread": label_distribution(values, kind, classes), "by_split": by_split, "conflicts": conflicts}


def label_distribution(values: NDArray[np.float32], kind: str, classes: list[str] | None) -> dict[str, Any]:
    """Counts of classes, positives with their share, or the range of a number."""
    known = values[~np.isnan(values)]
    if not len(known):
        return {}
    if kind == "text" and classes:
        return {name: int((known == code).sum()) for code, name in enumerate(classes)}
    if kind == "yes/no":
        return {"positive": int(known.sum()), "prevalence": round(float(known.mean()), 4)}
    return {"min": float(known.min()), "mean": round(float(known.mean(dtype=np.float64)), 4), "max": float(known.max())}
