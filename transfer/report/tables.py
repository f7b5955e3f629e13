"""The tables of one task: the results of `transfer compare`, AUROC per class, and decisions.

Shapes: C target columns, K classes.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.html import Html, collapsible_section, column_label, html_table, tag
from transfer.metrics import ValidationChoice, compute_all_metrics, confusion_matrix, decide_classes
from transfer.metrics.panel import are_probabilities
from transfer.protocols import describe_protocol
from transfer.records.cached_results import cached_result
from transfer.records.record import Record
from transfer.report.context import Block
from transfer.report.curves import record_temperature
from transfer.report.verdict_text import count_patients_and_images, rows_with_most_labels
from transfer.stats import Interval
from transfer.tables import render
from transfer.tables.calibration_rows import record_recalibration
from transfer.tables.comparison_table import COMPARISON_HEADER, format_comparisons
from transfer.tables.format import format_interval
from transfer.tables.label_table import LABEL_HEADER, format_labels, list_labels
from transfer.tables.operating_points import OPERATING_HEADER, OperatingRule, choose_record_thresholds, row_decisions
from transfer.tables.render_subgroups import format_number
from transfer.tables.row_estimates import row_interval
from transfer.tables.rows import Row, Section


def results_table(block: Block, display_names: Mapping[str, str]) -> Html:
    """The rows of `transfer compare`, without empty columns."""
    lines = render.format_rows(block, display_names, {})
    reference = shared_reference(block)
    if reference:
        lines = [(*line[:-1], render.strip_reference(line[-1], display_names[reference])) for line in lines]
    kept = [i for i, column in enumerate(zip(*lines, strict=True)) if any(column)]
    rows = [[_result_cell(render.RESULT_HEADER[i], line[i]) if i else line[0] for i in kept] for line in lines]
    return html_table([render.RESULT_HEADER[i] for i in kept], rows, "results")


def shared_reference(block: Block) -> str | None:
    """The reference of all differences of a table; None if there are several. It is named once below the table, not in every row."""
    references = {row.reference for s in block for row in s.rows if row.difference is not None}
    return min(references) if len(references) == 1 else None


def _result_cell(name: str, text: str) -> Html:
    if name != "verdict":
        return _value_cell(name, text)
    kind = next((word for word in ("better", "worse") if text.startswith(word)), None)
    return tag("td", text, data_label=column_label(name), class_=kind or (None if text else "none"))


def _value_cell(name: str, text: str, style: str | None = None) -> Html:
    """`0.931 [0.902, 0.953]` with its interval in a lighter colour."""
    value, _, rest = text.partition(" [")
    ends, _, after = rest.partition("]")
    # In one span, because a phone shows the cell as two columns: its name and this.
    inside = (
        tag("span", tag("b", value), " ", tag("span", f"[{ends}]", class_="interval"), tag("span", after, class_="note")) if ends else text
    )
    return tag("td", inside, data_label=column_label(name), class_=None if text else "none", style=style)


def class_table(section: Section, display_names: Mapping[str, str]) -> Html | None:
    """AUROC of every class with its interval, darker for higher values; None for a task with one class."""
    rows = rows_with_most_labels(section)
    if not rows or len(rows[0].records[0].meta.classes) < 2:
        return None
    classes = rows[0].records[0].meta.classes
    values, positives = [class_intervals(row) for row in rows], count_positives(rows[0])
    lines = []
    for c, name in enumerate(classes):
        cells = [shaded_cell(display_names[row.encoder], v[c]) for row, v in zip(rows, values, strict=True)]
        lines.append([name, positives[c], *cells])
    return html_table(["class", "positive test images", *(display_names[row.encoder] for row in rows)], lines, "heat")


def comparison_table(block: Block, display_names: Mapping[str, str]) -> Html:
    """All comparisons of a block with their p-values, in a part that opens on a click."""
    lines = [[*map(str, line)] for line in format_comparisons(block, display_names)]
    return collapsible_section("All comparisons", html_table(list(COMPARISON_HEADER), lines, "small"))


def label_differences(section: Section, display_names: Mapping[str, str]) -> Html | None:
    """Every label with its paired difference to the strongest baseline and its p-value; None for a task with one label."""
    lines = format_labels([line for line in list_labels(section) if line.difference is not None], display_names)
    if not lines:
        return None
    return html_table(list(LABEL_HEADER), [[*map(str, line)] for line in lines], "small")


def class_intervals(row: Row) -> list[Interval]:
    """The AUROC of every target column, computed as the table's mean AUROC is."""
    return [row_interval(row.records, "auroc", [c]) for c in range(len(row.records[0].meta.classes))]


def count_positives(row: Row) -> list[str]:
    """`14 of 81` for every target column, each image counted once."""

    def count() -> list[str]:
        keys = np.concatenate([r.arrays["test_key"].astype(str) for r in row.records])
        y = np.concatenate([r.arrays["test_y"] for r in row.records])[np.unique(keys, return_index=True)[1]]  # (M, C)
        return [f"{p} of {n}" for p, n in zip((y > 0.5).sum(axis=0), (~np.isnan(y)).sum(axis=0), strict=True)]

    return cached_result("positive images", row.records, (), list[str], count)


def shaded_cell(name: str, value: Interval) -> Html:
    """A cell with an AUROC, darker for higher values."""
    depth = 0.0 if math.isnan(value.value) else max(0.0, value.value - 0.5) * 0.7
    return _value_cell(name, format_interval(value), f"background: rgba(0, 114, 178, {depth:.2f})")


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
    names = meta.classes if meta.kind == "multiclass" else [f"not {meta.classes[0]}", meta.classes[0]]
    matrices = (_draw_matrix(display_names[row.encoder], names, confusion_matrices(row, rule)[0]) for row in rows)
    return tag("div", *matrices, class_="grid")


def _draw_matrix(encoder: str, names: Sequence[str], m: Array) -> Html:
    head = tag("tr", tag("th", "true \\ predicted"), *(tag("th", name, scope="col") for name in names))
    lines = [head]
    for name, counts in zip(names, m, strict=True):
        cells = []
        for value in counts:
            share = value / counts.sum() if counts.sum() else 0.0
            style = f"background: rgba(0, 114, 178, {0.45 * share:.2f})"
            cells.append(tag("td", tag("b", f"{value:.0f}"), tag("span", f" {share:.0%}", class_="interval"), style=style))
        lines.append(tag("tr", tag("th", name, scope="row"), *cells))
    caption = tag("figcaption", encoder)
    return tag("figure", caption, tag("div", tag("table", *lines, class_="matrix"), class_="wide"))


def operating_table(section: Section, display_names: Mapping[str, str], rule: OperatingRule) -> Html | None:
    """Sensitivity, specificity and predictive values at the validation thresholds; None for a multi-class task."""
    decided = [(row, row_decisions(row, rule)) for row in rows_with_most_labels(section)]
    lines = [[display_names[row.encoder], *decision.cells()] for row, decisions in decided for decision in decisions]
    return html_table(["encoder", *OPERATING_HEADER], lines) if lines else None


def all_metrics_table(section: Section, display_names: Mapping[str, str], rule: OperatingRule) -> Html:
    """Every metric of every encoder, the mean over folds and draws; without intervals."""
    rows = rows_with_most_labels(section)
    values = []
    for row in rows:
        per_record = [record_metrics(r, rule) for r in row.records]
        values.append({name: float(np.mean([metrics.get(name, math.nan) for metrics in per_record])) for name in per_record[0]})
    names = list(dict.fromkeys(name for metrics in values for name in metrics))
    lines = [[name.replace("_", " "), *(format_number(metrics.get(name, math.nan)) for metrics in values)] for name in names]
    return html_table(["metric", *(display_names[row.encoder] for row in rows)], lines, "small")


def record_metrics(record: Record, rule: OperatingRule) -> dict[str, float]:
    """Every metric of a record's test part, as `compute_all_metrics` names them."""

    def compute() -> dict[str, float]:
        y, s, _ = record.part("val")
        temperature = record_temperature(record) if np.isfinite(y).any() and are_probabilities(s) else math.nan
        choice = ValidationChoice(record.meta.kind, choose_record_thresholds(record, rule), temperature)
        y, s, _ = record.part("test")
        fits = record_recalibration(record) if are_probabilities(s) and np.isfinite(y).any() else None
        return compute_all_metrics(y, s, choice, rule.prevalence, fits)

    return cached_result("metrics", [record], (rule.kind, rule.target, rule.prevalence), dict[str, float], compute)


def intervals_note(block: Block, display_names: Mapping[str, str]) -> str:
    """The sample size of a table, its reference, and the meaning of its brackets and standard deviations."""
    rows = [row for s in block for row in s.rows]
    patients, images = count_patients_and_images(rows)
    titles = {"auroc": "AUROC", "ap": "AP", "balanced_accuracy": "balanced accuracy"}
    titles_of: dict[str, list[str]] = {}
    for name, title in titles.items():
        for method in dict.fromkeys(row.metrics[name].method for row in rows):
            titles_of.setdefault(method, []).append(title)
    methods = "; ".join(f"{' and '.join(titles)}: {method}" for method, titles in titles_of.items())
    sd = " sd: standard deviation over draws of the labeled patients." if any(not math.isnan(row.draw_std) for row in rows) else ""
    reference = shared_reference(block)
    relative = f" Differences and verdicts are relative to {display_names[reference]}, on the same test patients." if reference else ""
    return f"n = {patients} test patients, {images} images.{relative} Brackets: 95 % intervals over patients ({methods}).{sd}"


def protocol_title(section: Section) -> str:
    """The title of a section's protocol."""
    return describe_protocol(section.protocol)
