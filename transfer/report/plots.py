"""The charts of one task, one panel per protocol. An encoder has the same line style on the whole page."""

import math
from collections.abc import Sequence

import numpy as np

from encoders.runtime.html import Html, html_table, tag
from encoders.runtime.svg import Frame, LineStyle, draw_band, draw_chart, draw_diagonal, draw_dots, draw_line, draw_whiskers, line_style
from transfer.metrics import macro
from transfer.report.context import Block, Pens, ReportContext
from transfer.report.curve_bands import CURVE_GRID, CurveKind, resampled_curves
from transfer.report.curves import row_reliability, row_risk_curve, row_tempered_errors
from transfer.report.label_savings import labeled_patients
from transfer.report.tables import protocol_title
from transfer.report.verdict_text import rows_with_most_labels
from transfer.tables.calibration_rows import row_calibration
from transfer.tables.format import format_interval
from transfer.tables.rows import Row, Section

MAX_CURVES, MAX_BANDS = 6, 3  # encoders and bands per panel; more cannot be distinguished


def assign_pens(sections: Sequence[Section]) -> dict[str, LineStyle]:
    """A line style for every encoder of the page, in order of the tables."""
    return {name: line_style(i) for i, name in enumerate(dict.fromkeys(row.encoder for s in sections for row in s.rows))}


def draw_legend(block: Block, context: ReportContext) -> Html:
    """The line style of every encoder of a block."""
    keys = []
    for name in dict.fromkeys(row.encoder for s in block for row in s.rows):
        pen = context.pens[name]
        line = tag("line", x1=0, y1=6, x2=28, y2=6, stroke=pen.colour, stroke_width=2.4, stroke_dasharray=pen.dash)
        swatch = tag("svg", line, viewBox="0 0 28 12", class_="swatch", aria_hidden="true")
        keys.append(tag("span", swatch, " ", context.display_names[name]))
    return tag("p", *keys, class_="legend")


def ranking_charts(section: Section, pens: Pens) -> list[Html]:
    """ROC and precision-recall curves with their bands."""
    charts = []
    shown = [(pens[row.encoder], resampled_curves(row.records)) for row in rows_with_most_labels(section)[:MAX_CURVES]]
    panels: tuple[tuple[CurveKind, str, tuple[str, str]], ...] = (
        ("roc", "ROC", ("1 − specificity", "sensitivity")),
        ("pr", "precision-recall", ("recall", "precision")),
    )
    for kind, title, axes in panels:
        frame, marks = Frame(), []
        if kind == "roc":
            marks.append(draw_diagonal(frame))
        curves = [(pen, both[kind]) for pen, both in shown]
        marks += [draw_band(frame, CURVE_GRID, c.low, c.high, p) for p, c in curves[:MAX_BANDS]]
        marks += [draw_line(frame, CURVE_GRID, c.y, p) for p, c in curves]
        charts.append(tag("figure", draw_chart(frame, marks, f"{title}, {protocol_title(section)}", *axes)))
    return charts


def label_efficiency_chart(section: Section, pens: Pens) -> Html | None:
    """AUROC over the number of labeled patients; None if all rows have the same label fraction and number of shots."""
    if len({(row.fraction, row.shots) for row in section.rows}) < 2:
        return None
    lines: dict[str, list[Row]] = {}
    for row in section.rows:
        lines.setdefault(row.encoder, []).append(row)
    labeled = sorted({labeled_patients(row) for row in section.rows})
    ends = [v for row in section.rows for v in row.metrics["auroc"].ends]
    margin = (labeled[-1] / labeled[0]) ** 0.06 if labeled[-1] > labeled[0] else 1.5
    frame = Frame((labeled[0] / margin, labeled[-1] * margin), axis_limits(ends), log=True)
    marks: list[Html] = []
    for i, (name, rows) in enumerate(list(lines.items())[:MAX_CURVES]):
        rows.sort(key=labeled_patients)
        # Shifted sideways, so that the whiskers of two encoders do not cover each other.
        x = np.array([labeled_patients(row) for row in rows]) * margin ** (0.18 * (i - (min(len(lines), MAX_CURVES) - 1) / 2))
        y, low, high = np.array([row.metrics["auroc"].ends for row in rows]).T
        marks += [
            draw_line(frame, x, y, pens[name]),
            *draw_whiskers(frame, x, low, high, pens[name]),
            *draw_dots(frame, x, y, pens[name]),
        ]
    ticks = [v for i, v in enumerate(labeled) if i in (0, len(labeled) - 1) or v / labeled[0] > 1.3]
    return tag(
        "figure", draw_chart(frame, marks, f"label efficiency, {protocol_title(section)}", "labeled train patients (log)", "AUROC", ticks)
    )


def axis_limits(values: Sequence[float]) -> tuple[float, float]:
    """The limits of an axis around the values, rounded outwards to multiples of 0.05; NaN is ignored."""
    ends = [v for v in values if not math.isnan(v)] or [0.5, 1.0]
    bottom, top = math.floor(min(ends) * 20) / 20, math.ceil(max(ends) * 20) / 20
    return bottom, max(top, bottom + 0.05)


def reliability_chart(section: Section, pens: Pens, tempered: bool = False) -> Html | None:
    """The reliability diagram, with or without the temperature fitted on validation patients; None if no score is a probability."""
    frame, marks = Frame(), [draw_diagonal(Frame())]
    for row in rows_with_most_labels(section)[:MAX_CURVES]:
        bins = row_reliability(row.records, tempered)
        if bins is not None:
            marks += [draw_line(frame, bins["confidence"], bins["frequency"], pens[row.encoder])]
            marks += draw_dots(frame, bins["confidence"], bins["frequency"], pens[row.encoder])
    if len(marks) == 1:
        return None
    title = f"{'tempered ' if tempered else ''}reliability, {protocol_title(section)}"
    return tag("figure", draw_chart(frame, marks, title, "mean probability", "observed frequency"))


def risk_chart(section: Section, pens: Pens) -> Html | None:
    """Error over coverage, when the least confident predictions are deferred to a person; None if no score is a probability."""
    curves = [
        (pens[row.encoder], curve)
        for row in rows_with_most_labels(section)[:MAX_CURVES]
        if (curve := row_risk_curve(row.records)) is not None
    ]
    if not curves:
        return None
    top = max(c.top for _, c in curves)
    frame = Frame((0.0, 1.0), (0.0, max(math.ceil(top * 20) / 20, 0.05)))
    marks = [draw_line(frame, c.coverage, c.risk, p) for p, c in curves]
    title = f"risk and coverage, {protocol_title(section)}"
    return tag("figure", draw_chart(frame, marks, title, "coverage: share of predictions kept", "risk: error among them"))


def calibration_table(block: Block, context: ReportContext) -> Html:
    """Calibration error and Brier score, before and after temperature scaling on validation patients; slope and calibration in the large.

    The last two are means over the labels; of one label, or of the predicted class, with an interval."""
    lines, shown = [], context.display_names
    for section in block:
        for row in rows_with_most_labels(section):
            errors = row_tempered_errors(row.records)
            if errors is None:
                lines.append([shown[row.encoder], protocol_title(section), "no probabilities", *[""] * 6])
                continue
            numbers = [f"{value:.3f}" for value in errors[:4]]
            recalibrated = mean_recalibration(row)
            lines.append([shown[row.encoder], protocol_title(section), *numbers, f"{errors.temperature:.2f}", *recalibrated])
    header = ["encoder", "protocol", "ECE", "ECE after scaling", "Brier", "Brier after scaling", "temperature", "slope", "in the large"]
    return html_table(header, lines)


def mean_recalibration(row: Row) -> tuple[str, str]:
    """Calibration slope and calibration in the large as text: with the interval of one label, or the means over the defined labels."""
    fits = row_calibration(row.records)
    both = [fit.slope for fit in fits], [fit.in_the_large for fit in fits]
    if len(fits) == 1:
        return format_interval(both[0][0]), format_interval(both[1][0])
    slope, large = (float(macro(np.array([value.value for value in values]))[0]) for values in both)
    return f"{slope:.3f}", f"{large:.3f}"
