"""The tables of one task: results as `transfer compare` prints them, per class, and decisions.

Shapes: C columns of the target, K classes.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from encoders.runtime.html import Html, column_label, html_table, tag
from transfer.metrics import choose_on_validation, compute_all_metrics, confusion_matrix, decide_classes
from transfer.protocols import describe_protocol
from transfer.report.verdict import count_patients_and_images, rows_with_most_labels
from transfer.stats import Interval
from transfer.tables import render
from transfer.tables.operating_points import OPERATING_HEADER, OperatingRule, choose_record_thresholds, row_decisions
from transfer.tables.rows import Row, Section, pooled_auroc


def results_table(block: Sequence[Section], shown: Mapping[str, str]) -> Html:
    """Encoders x protocols with intervals: the very rows of `transfer compare`, without columns that are empty."""
    lines = render.format_rows(block, shown, {})
    against = shared_reference(block)
    if against:
        ends = [f" {link} {shown[against]}" for link in ("than", *render.VERDICT_LINKS.values())]
        lines = [(*line[:-1], line[-1].removesuffix(next((end for end in ends if line[-1].endswith(end)), ""))) for line in lines]
    kept = [i for i, column in enumerate(zip(*lines, strict=True)) if any(column)]
    rows = [[_result_cell(render.RESULT_HEADER[i], line[i]) if i else line[0] for i in kept] for line in lines]
    return html_table([render.RESULT_HEADER[i] for i in kept], rows, "results")


def shared_reference(block: Sequence[Section]) -> str | None:
    """The encoder that all differences of a table are to, if it is one: said once below, not in every row."""
    found = {row.versus for s in block for row in s.rows if row.difference is not None}
    return min(found) if len(found) == 1 else None


def _result_cell(name: str, text: str) -> Html:
    if name != "verdict":
        return _value_cell(name, text)
    kind = next((word for word in ("better", "worse") if text.startswith(word)), None)
    return tag("td", text, data_label=column_label(name), class_=kind or (None if text else "none"))


def _value_cell(name: str, text: str, style: str | None = None) -> Html:
    """`0.931 [0.902, 0.953]` with its interval set back."""
    value, _, rest = text.partition(" [")
    ends, _, after = rest.partition("]")
    # In one span: a phone shows the cell as two columns, its name and this.
    inside = (
        tag("span", tag("b", value), " ", tag("span", f"[{ends}]", class_="interval"), tag("span", after, class_="note")) if ends else text
    )
    return tag("td", inside, data_label=column_label(name), class_=None if text else "none", style=style)


def class_table(section: Section, shown: Mapping[str, str]) -> Html | None:
    """AUROC of every class with its interval, darker for higher; None where there is one class."""
    rows = rows_with_most_labels(section)
    if not rows or len(rows[0].records[0].meta.classes) < 2:
        return None
    classes = rows[0].records[0].meta.classes
    values = [class_intervals(row) for row in rows]
    lines = []
    for c, name in enumerate(classes):
        cells = [shaded_cell(shown[row.encoder], v[c]) for row, v in zip(rows, values, strict=True)]
        lines.append([name, count_positives(rows[0], c), *cells])
    return html_table(["class", "positive test images", *(shown[row.encoder] for row in rows)], lines, "heat")


def class_intervals(row: Row) -> list[Interval]:
    """The AUROC of every column of the target, as the table's is made for their mean."""
    return [pooled_auroc(row.records, c) for c in range(len(row.records[0].meta.classes))]


def count_positives(row: Row, c: int) -> str:
    """`14 of 81`, each image counted once."""
    seen = {k: v for r in row.records for k, v in zip(r.arrays["test_key"].tolist(), r.arrays["test_y"][:, c].tolist(), strict=True)}
    known = [v for v in seen.values() if not math.isnan(v)]
    return f"{int(sum(v > 0.5 for v in known))} of {len(known)}"


def shaded_cell(name: str, value: Interval) -> Html:
    """A cell with an AUROC, darker for higher."""
    depth = 0.0 if math.isnan(value.value) else max(0.0, value.value - 0.5) * 0.7
    return _value_cell(name, render.format_interval(value), f"background: rgba(0, 114, 178, {depth:.2f})")


def confusion_matrices(row: Row, asked: OperatingRule = OperatingRule()) -> list[np.ndarray]:
    """Confusion matrices (K, K), summed over folds and draws: one of a multi-class task, else one a label at its validation threshold."""
    total: list[np.ndarray] = []
    for record in row.records:
        y, s, _ = record.part("test")
        tables = [confusion_matrix(*d) for d in decide_classes(y, s, record.meta.kind, choose_record_thresholds(record, asked))]
        total = [a + b for a, b in zip(total, tables, strict=True)] if total else tables
    return total


def draw_confusion_matrices(section: Section, shown: Mapping[str, str], asked: OperatingRule) -> Html | None:
    """A matrix an encoder, for tasks with one decision an image."""
    rows = rows_with_most_labels(section)
    if not rows or rows[0].records[0].meta.kind == "multilabel":
        return None
    meta = rows[0].records[0].meta
    names = meta.classes if meta.kind == "multiclass" else [f"not {meta.classes[0]}", meta.classes[0]]
    return tag("div", *(_draw_matrix(shown[row.encoder], names, confusion_matrices(row, asked)[0]) for row in rows), class_="grid")


def _draw_matrix(encoder: str, names: Sequence[str], m: np.ndarray) -> Html:
    head = tag("tr", tag("th", "true \\ decided"), *(tag("th", name, scope="col") for name in names))
    lines = [head]
    for name, counts in zip(names, m, strict=True):
        cells = []
        for value in counts:
            share = value / counts.sum() if counts.sum() else 0.0
            look = f"background: rgba(0, 114, 178, {0.45 * share:.2f})"
            cells.append(tag("td", tag("b", f"{value:.0f}"), tag("span", f" {share:.0%}", class_="interval"), style=look))
        lines.append(tag("tr", tag("th", name, scope="row"), *cells))
    caption = tag("figcaption", encoder)
    return tag("figure", caption, tag("div", tag("table", *lines, class_="matrix"), class_="wide"))


def operating_table(section: Section, shown: Mapping[str, str], asked: OperatingRule) -> Html | None:
    """Sensitivity, specificity and predictive values at the validation thresholds, for binary and multi-label tasks."""
    found = [(row, row_decisions(row, asked)) for row in rows_with_most_labels(section)]
    lines = [[shown[row.encoder], *point.told()] for row, mine in found for point in mine]
    return html_table(["encoder", *OPERATING_HEADER], lines) if lines else None


def all_metrics_table(section: Section, shown: Mapping[str, str], asked: OperatingRule) -> Html:
    """Every metric of every encoder, the mean over folds and draws; without intervals."""
    rows = rows_with_most_labels(section)
    values = []
    for row in rows:
        each = [
            compute_all_metrics(
                *r.part("test")[:2], choose_on_validation(*r.part("val")[:2], r.meta.kind, asked.rule, asked.target), asked.prevalence
            )
            for r in row.records
        ]
        values.append({name: float(np.mean([one.get(name, math.nan) for one in each])) for name in each[0]})
    names = list(dict.fromkeys(name for one in values for name in one))
    number = lambda v: "" if math.isnan(v) else f"{v:.3f}"  # noqa: E731
    lines = [[name.replace("_", " "), *(number(one.get(name, math.nan)) for one in values)] for name in names]
    return html_table(["metric", *(shown[row.encoder] for row in rows)], lines, "small")


def intervals_note(block: Sequence[Section], shown: Mapping[str, str]) -> str:
    """On whom the numbers of a table are, and what its brackets and spreads mean."""
    rows = [row for s in block for row in s.rows]
    patients, images = count_patients_and_images(rows)
    kinds = {"auroc": "AUROC", "ap": "AP", "balanced_accuracy": "balanced accuracy"}
    how: dict[str, list[str]] = {}
    for name, title in kinds.items():
        for method in dict.fromkeys(row.metrics[name].method for row in rows):
            how.setdefault(method, []).append(title)
    told = "; ".join(f"{' and '.join(titles)}: {method}" for method, titles in how.items())
    spread = " sd: standard deviation over draws of the labeled patients." if any(not math.isnan(row.spread) for row in rows) else ""
    against = shared_reference(block)
    pairs = f" Differences and verdicts are to {shown[against]}, on the same test patients." if against else ""
    return f"n = {patients} test patients, {images} images.{pairs} Brackets: 95 % intervals over patients ({told}).{spread}"


def protocol_title(section: Section) -> str:
    return describe_protocol(section.protocol)
