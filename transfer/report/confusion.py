"""Confusion matrices of a report.

Shapes: K classes.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.html import Html, tag
from transfer.metrics import confusion_matrix, decide_classes
from transfer.records.cached_results import cached_result
from transfer.records.record import Record
from transfer.tables.operating_points import OperatingRule, choose_record_thresholds
from transfer.tables.rows import Row, Section, rows_with_most_labels
from transfer.tasks.plain_classes import negative_class, plain_class

MOST_NAMED_COLUMNS = 3  # a matrix with more classes numbers its columns, so that it fits beside others and on a phone


def confusion_matrices(row: Row, rule: OperatingRule = OperatingRule()) -> list[Array]:
    """Confusion matrices (K, K), summed over folds and draws: one if multi-class, else one per label at its validation threshold."""
    settings = rule.kind, rule.target
    return cached_result("confusion", row.records, settings, list[np.ndarray], lambda: _sum_confusions(row.records, rule))


def _sum_confusions(records: Sequence[Record], rule: OperatingRule) -> list[Array]:
    total: list[Array] = []
    for record in records:
        y, s, _ = record.part("test")
        matrices = [confusion_matrix(*d) for d in decide_classes(y, s, record.meta.kind, choose_record_thresholds(record, rule))]
        total = [a + b for a, b in zip(total, matrices, strict=True)] if total else matrices
    return total


def draw_confusion_matrices(section: Section, display_names: Mapping[str, str], rule: OperatingRule) -> Html | None:
    """One confusion matrix per encoder; None for a multi-label task, which makes several decisions per image."""
    rows = rows_with_most_labels(section)
    if not rows or rows[0].records[0].meta.kind == "multilabel":
        return None
    meta = rows[0].records[0].meta
    names = meta.classes if meta.kind == "multiclass" else [negative_class(meta.classes[0]), plain_class(meta.classes[0])]
    draw = _draw_matrix if len(names) <= MOST_NAMED_COLUMNS else _draw_compact_matrix
    matrices = (draw(display_names[row.encoder], names, confusion_matrices(row, rule)[0]) for row in rows)
    return tag("div", *matrices, class_="grid" if len(names) <= MOST_NAMED_COLUMNS else "grid broad")


def _draw_matrix(encoder: str, names: Sequence[str], m: Array) -> Html:
    head = tag("tr", tag("th", "true \\ predicted"), *(tag("th", name, scope="col") for name in names))
    lines = [head]
    for name, counts in zip(names, m, strict=True):
        cells = []
        for value in counts:
            share = value / counts.sum() if counts.sum() else 0.0
            parts = tag("b", f"{value:.0f}"), tag("span", f" {share:.0%}", class_="interval")
            cells.append(tag("td", *parts, style=_shade(share)))
        lines.append(tag("tr", tag("th", name, scope="row"), *cells))
    return tag("figure", tag("figcaption", encoder), tag("div", tag("table", *lines, class_="matrix"), class_="wide"))


def _draw_compact_matrix(encoder: str, names: Sequence[str], m: Array) -> Html:
    """Counts only, with numbers in place of the predicted classes' names; the row of a class gives its number."""
    numbers = (tag("th", i + 1, scope="col", title=name) for i, name in enumerate(names))
    lines = [tag("tr", tag("th", "true \\ predicted"), *numbers)]
    for i, (name, counts) in enumerate(zip(names, m, strict=True)):
        cells = []
        for other, value in zip(names, counts, strict=True):
            share = value / counts.sum() if counts.sum() else 0.0
            cells.append(tag("td", f"{value:.0f}", style=_shade(share), title=f"{name} predicted as {other}: {value:.0f}, {share:.0%}"))
        lines.append(tag("tr", tag("th", f"{i + 1} {name}", scope="row"), *cells))
    return tag("figure", tag("figcaption", encoder), tag("div", tag("table", *lines, class_="matrix compact"), class_="wide"))


def _shade(share: float) -> str:
    return f"background: rgba(0, 114, 178, {0.45 * share:.2f})"
