"""Label columns of 0 and 1 from a text column with lists of findings, and errors for such a column where classes are expected.

Shapes: N images.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from encoders.ingest.label_lists import describe_counts, holds_lists, list_items, plain_name, read_findings
from encoders.runtime.errors import InputError
from encoders.runtime.unknown_values import add_counts
from transfer.tasks.labels import LabelColumn, read_store_labels

if TYPE_CHECKING:
    from encoders.store.store import Store


def split_findings(column: LabelColumn, names: Sequence[str], separator: str | None = None) -> tuple[list[LabelColumn], list[str]]:
    """One 0/1 column per finding, and messages for the user; an image whose list is empty is unknown.

    separator: of lists without brackets; None: found in the column.  Raises InputError for a finding that no list names."""
    texts = list_texts(column)
    found = read_findings(column.name, texts, names, separator)
    unknown = add_counts([column.unknown_texts, {text: n for text, n in found.unknown.items() if text}])
    columns = []
    for name, values in found.values.items():
        codes = np.array([float(value) if value else np.nan for value in values], dtype=np.float32)
        columns.append(LabelColumn(name, codes, None, column.without_row, unknown))
    return columns, found.describe(column.name)[:1]  # the unknown cells are counted with the texts that the ingest found unknown


def list_texts(column: LabelColumn) -> list[str]:
    """(N,) the text of every image; "" if it is unknown."""
    known = np.isfinite(column.codes)
    texts = [""] * len(known)
    for i in np.flatnonzero(known).tolist():
        code = column.codes[i]
        texts[i] = column.classes[int(code)] if column.classes is not None else f"{code:g}"
    return texts


def check_classes(column: LabelColumn) -> None:
    """Raises InputError for a column of lists: each combination would become a class."""
    if column.classes is None:
        return
    texts = list_texts(column)
    if holds_lists(texts):
        raise InputError(
            f"label column {column.name!r} holds lists of findings, and every combination would be a class; for a label of 0 and 1 per "
            f"finding, pass --list-column {column.name} --finding NAME,NAME instead. The lists hold {describe_counts(list_items(texts))}"
        )


def check_listed(store: "Store", names: Sequence[str]) -> None:
    """Raises InputError for a name that is no column of the store but a finding in the lists of a text label."""
    for name in names:
        if name in store.label_names() or store.has_column(name):
            continue
        for column in store.label_names():
            classes = store.classes(column) or []
            if holds_lists(classes) and plain_name(name) in {plain_name(item) for item in list_items(classes)}:
                raise InputError(
                    f"the store has no label {name!r}, but the lists in its column {column!r} name it; pass --list-column {column} "
                    f"--finding {','.join(names)}"
                )


def describe_stored_lists(store: "Store", column: str) -> str:
    """`. The lists hold pneumonia 3, mass 1`, for a message; "" if the store has no such column."""
    if column not in store.label_names() and not store.has_column(column):
        return ""
    return f". The lists hold {describe_counts(list_items(list_texts(read_store_labels(store, [column])[0])))}"
