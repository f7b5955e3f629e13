"""Sentences about images whose label is not used: unknown values, and classes that are not kept.

Shapes: N images.
"""

from collections.abc import Sequence

import numpy as np

from encoders.runtime.unknown_values import describe_unknown
from transfer.tasks.labels import LabelColumn

MAX_COLUMNS_SHOWN = 5  # label columns whose unknown texts are shown


def describe_unknown_labels(columns: Sequence[LabelColumn]) -> list[str]:
    """A sentence for each column with unknown labels: how many of the images with a row have none, and which texts they have instead.

    At most `MAX_COLUMNS_SHOWN` columns are shown, those with the most unknown labels; one more sentence counts the others."""
    found = []
    for column in columns:
        has_row = np.ones(len(column.codes), dtype=bool) if column.without_row is None else ~column.without_row
        n = int((np.isnan(column.codes) & has_row).sum())
        if n:
            complete = sum(column.unknown_texts.values()) == n  # a store of an earlier version does not state the texts
            texts = describe_unknown(column.unknown_texts) if complete else f"{n:,} unknown"
            found.append((n, f"label column {column.name!r}: {texts} (of {int(has_row.sum()):,} images)"))
    found.sort(key=lambda each: -each[0])
    rest = found[MAX_COLUMNS_SHOWN:]
    shown = [text for _, text in found[:MAX_COLUMNS_SHOWN]]
    return shown + ([f"{len(rest)} more label columns have {rest[-1][0]:,} to {rest[0][0]:,} unknown values each"] if rest else [])


def describe_left_out_classes(column: LabelColumn, keep: Sequence[str]) -> list[str]:
    """A sentence about the images of the classes that `keep` does not name; [] if there are none."""
    names = column.classes or []
    codes = column.codes[np.isfinite(column.codes)].astype(int)
    kept = {name.casefold() for name in keep}
    counts = {name: int((codes == i).sum()) for i, name in enumerate(names) if name.casefold() not in kept}
    left = {name: n for name, n in counts.items() if n}
    if not left:
        return []
    return [f"{sum(left.values()):,} images are of classes that are not kept: {', '.join(f'{name} {n:,}' for name, n in left.items())}"]
