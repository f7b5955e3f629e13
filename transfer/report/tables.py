"""The tables of one task: the results of `transfer compare`, AUROC per class, and decisions.

Shapes: C target columns.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from encoders.runtime.html import Html, collapsible_section, column_label, html_table, join_html, tag
from transfer.metrics import ValidationChoice, compute_all_metrics
from transfer.metrics.panel import are_probabilities
from transfer.protocols import describe_protocol
from transfer.records.cached_results import cached_result
from transfer.records.record import Record
from transfer.report.context import Block
from transfer.report.curves import record_temperature
from transfer.report.verdict_text import count_patients_and_images
from transfer.stats import Interval
from transfer.tables import render
from transfer.tables.calibration_rows import record_recalibration
from transfer.tables.comparison_table import COMPARISON_HEADER, format_comparisons
from transfer.tables.format import format_interval
from transfer.tables.label_table import LABEL_HEADER, format_labels, list_labels
from transfer.tables.operating_points import OPERATING_HEADER, OperatingRule, choose_record_thresholds, row_decisions
from transfer.tables.render_subgroups import format_number
from transfer.tables.row_estimates import row_interval
from transfer.tables.rows import Row, Section, rows_with_most_labels
from transfer.tasks.plain_classes import plain_class

MOST_ENCODER_COLUMNS = 6  # columns of intervals beside each other


def results_table(block: Block, display_names: Mapping[str, str]) -> Html:
    """The rows of `transfer compare`, without empty columns. Those of one encoder stand together below its name; ImageNet weights first."""
    lines = render.format_rows(block, display_names, {})
    reference = shared_reference(block)
    if reference:
        lines = [(*line[:-1], render.strip_reference(line[-1], display_names[reference])) for line in lines]
    kept = [i for i, column in enumerate(zip(*lines, strict=True)) if i and any(column)]
    header = [render.RESULT_HEADER[i] for i in kept]
    weights = {display_names[row.encoder] for s in block for row in s.rows if row.role == "imagenet"}
    groups: dict[str, list[tuple[str, ...]]] = {}
    for line in sorted(lines, key=lambda line: line[0] not in weights):
        groups.setdefault(line[0], []).append(line)
    bodies = []
    for name, own in groups.items():
        title = tag("tr", tag("th", name, colspan=len(kept), scope="rowgroup"), class_="name")
        rows = (tag("tr", *(_result_cell(render.RESULT_HEADER[i], line[i]) for i in kept)) for line in own)
        bodies.append(tag("tbody", title, *rows))
    head = tag("thead", tag("tr", *(tag("th", column_label(name), scope="col") for name in header)))
    return tag("div", tag("table", head, *bodies, class_="results"), class_="wide")


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
    classes, positives = rows[0].records[0].meta.classes, count_positives(rows[0])
    values = {row.encoder: class_intervals(row) for row in rows}
    parts = []
    for encoders in split_columns(list(values)):
        lines = [
            [name, positives[c], *(shaded_cell(display_names[encoder], values[encoder][c]) for encoder in encoders)]
            for c, name in enumerate(classes)
        ]
        header = ["class", "positive test images", *(display_names[encoder] for encoder in encoders)]
        parts.append(html_table(header, lines, "heat"))
    return join_html(parts)


def split_columns(encoders: Sequence[str]) -> list[Sequence[str]]:
    """The encoders of a table that has a column for each, in as many tables as a page's width needs."""
    count = math.ceil(len(encoders) / MOST_ENCODER_COLUMNS)
    size = math.ceil(len(encoders) / max(count, 1))
    return [encoders[i : i + size] for i in range(0, len(encoders), max(size, 1))]


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


def operating_table(section: Section, display_names: Mapping[str, str], rule: OperatingRule) -> Html | None:
    """Sensitivity, specificity and predictive values at the validation thresholds; None for a multi-class task."""
    decided = [(row, row_decisions(row, rule)) for row in rows_with_most_labels(section)]
    lines = [
        [display_names[row.encoder], plain_class(label), *cells]
        for row, decisions in decided
        for label, *cells in (decision.cells() for decision in decisions)
    ]
    return html_table(["encoder", *OPERATING_HEADER], lines) if lines else None


def all_metrics_table(section: Section, display_names: Mapping[str, str], rule: OperatingRule) -> Html:
    """Every metric of every encoder, the mean over folds and draws; without intervals."""
    rows = rows_with_most_labels(section)
    values = []
    for row in rows:
        per_record = [record_metrics(r, rule) for r in row.records]
        values.append({name: float(np.mean([metrics.get(name, math.nan) for metrics in per_record])) for name in per_record[0]})
    names = list(dict.fromkeys(name for metrics in values for name in metrics))
    by_encoder = dict(zip((row.encoder for row in rows), values, strict=True))
    parts = []
    for encoders in split_columns(list(by_encoder)):
        lines = [[name.replace("_", " "), *(format_number(by_encoder[e].get(name, math.nan)) for e in encoders)] for name in names]
        parts.append(html_table(["metric", *(display_names[e] for e in encoders)], lines, "small"))
    return join_html(parts)


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
