"""The charts of one task for every protocol: one panel, or small multiples of more than six encoders.

An encoder has the same line style on the whole page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from encoders.runtime.html import Html, html_table, tag
from encoders.runtime.svg import Frame, LineStyle, draw_band, draw_chart, draw_diagonal, draw_dots, draw_line, draw_whiskers
from transfer.metrics import macro
from transfer.report.context import Block, ReportContext
from transfer.report.curve_bands import CURVE_GRID, CurveKind, resampled_curves
from transfer.report.curves import row_reliability, row_risk_curve, row_tempered_errors
from transfer.report.panels import MAX_BANDS, group_curve, panel_legend, panel_title, split_panels, split_rows
from transfer.report.tables import protocol_title
from transfer.tables.calibration_rows import row_calibration
from transfer.tables.format import format_interval
from transfer.tables.labels_needed import labeled_patients
from transfer.tables.rows import Row, Section, rows_with_most_labels


def chart_figure(svg: Html, names: Sequence[str], context: ReportContext) -> Html:
    """A chart with the legend of its panel."""
    return tag("figure", svg, panel_legend(names, context))


def ranking_charts(section: Section, context: ReportContext) -> list[Html]:
    """ROC and precision-recall curves with their bands."""
    charts, pens = [], context.pens
    rows_drawn = rows_with_most_labels(section)
    curves = {row.encoder: resampled_curves(row.records) for row in rows_drawn}
    panels = split_rows(rows_drawn, pens)
    kinds: tuple[tuple[CurveKind, str, tuple[str, str]], ...] = (
        ("roc", "ROC", ("1 − specificity", "sensitivity")),
        ("pr", "precision-recall", ("recall", "precision")),
    )
    for kind, title, axes in kinds:
        for i, rows in enumerate(panels):
            frame, marks = Frame(), []
            if kind == "roc":
                marks.append(draw_diagonal(frame))
            for k, row in enumerate(rows):
                curve, pen = curves[row.encoder][kind], pens[row.encoder]
                band = draw_band(frame, CURVE_GRID, curve.low, curve.high, pen)
                line = draw_line(frame, CURVE_GRID, curve.y, pen)
                marks.append(group_curve(context.display_names[row.encoder], [line], band, k < MAX_BANDS))
            name = panel_title(f"{title}, {protocol_title(section)}", i, len(panels))
            charts.append(chart_figure(draw_chart(frame, marks, name, *axes), [row.encoder for row in rows], context))
    return charts


def label_efficiency_charts(section: Section, context: ReportContext) -> list[Html]:
    """AUROC over the number of labeled patients; [] if all rows have the same label fraction and number of shots."""
    if len({(row.fraction, row.shots) for row in section.rows}) < 2:
        return []
    lines: dict[str, list[Row]] = {}
    for row in section.rows:
        lines.setdefault(row.encoder, []).append(row)
    axis = label_axis(section.rows)
    panels, charts = split_panels(lines, context.pens), []
    for k, names in enumerate(panels):
        marks = draw_label_curves(axis, [(context.display_names[name], lines[name], context.pens[name]) for name in names])
        title = panel_title(f"label efficiency, {protocol_title(section)}", k, len(panels))
        charts.append(chart_figure(axis.draw(marks, title), names, context))
    return charts


@dataclass(frozen=True)
class LabelAxis:
    """A chart of AUROC over the number of labeled patients. margin: a factor by which the axis is longer than the numbers at either end."""

    frame: Frame
    margin: float
    ticks: Sequence[float]

    def draw(self, marks: Sequence[Html], title: str) -> Html:
        """The chart with its marks."""
        return draw_chart(self.frame, marks, title, "labeled train patients (log)", "AUROC", self.ticks)


def label_axis(rows: Sequence[Row]) -> LabelAxis:
    """The axes on which all of these rows and their intervals have room."""
    labeled = sorted({labeled_patients(row) for row in rows})
    margin = (labeled[-1] / labeled[0]) ** 0.06 if labeled[-1] > labeled[0] else 1.5
    ends = [v for row in rows for v in row.metrics["auroc"].ends]
    frame = Frame((labeled[0] / margin, labeled[-1] * margin), axis_limits(ends), log=True)
    return LabelAxis(frame, margin, [v for i, v in enumerate(labeled) if i in (0, len(labeled) - 1) or v / labeled[0] > 1.3])


def draw_label_curves(axis: LabelAxis, curves: Sequence[tuple[str, Sequence[Row], LineStyle]]) -> list[Html]:
    """A line with dots and whiskers for each (name, rows, pen), shifted sideways, so that whiskers do not cover each other."""
    marks: list[Html] = []
    for i, (name, own, pen) in enumerate(curves):
        rows = sorted(own, key=labeled_patients)
        x = np.array([labeled_patients(row) for row in rows]) * axis.margin ** (0.18 * (i - (len(curves) - 1) / 2))
        y, low, high = np.array([row.metrics["auroc"].ends for row in rows]).T
        drawn = [draw_line(axis.frame, x, y, pen), *draw_whiskers(axis.frame, x, low, high, pen), *draw_dots(axis.frame, x, y, pen)]
        marks.append(group_curve(name, drawn))
    return marks


def axis_limits(values: Sequence[float]) -> tuple[float, float]:
    """The limits of an axis around the values, rounded outwards to multiples of 0.05; NaN is ignored."""
    ends = [v for v in values if not math.isnan(v)] or [0.5, 1.0]
    bottom, top = math.floor(min(ends) * 20) / 20, math.ceil(max(ends) * 20) / 20
    return bottom, max(top, bottom + 0.05)


def reliability_charts(section: Section, context: ReportContext, tempered: bool = False) -> list[Html]:
    """The reliability diagram, with or without the temperature fitted on validation patients; [] if no score is a probability."""
    bins = {row.encoder: b for row in rows_with_most_labels(section) if (b := row_reliability(row.records, tempered)) is not None}
    frame, charts = Frame(), []
    panels = split_panels(bins, context.pens) if bins else []
    for i, names in enumerate(panels):
        marks = [draw_diagonal(frame)]
        for name in names:
            x, y, pen = bins[name]["confidence"], bins[name]["frequency"], context.pens[name]
            marks.append(group_curve(context.display_names[name], [draw_line(frame, x, y, pen), *draw_dots(frame, x, y, pen)]))
        title = panel_title(f"{'tempered ' if tempered else ''}reliability, {protocol_title(section)}", i, len(panels))
        charts.append(chart_figure(draw_chart(frame, marks, title, "mean probability", "observed frequency"), names, context))
    return charts


def risk_charts(section: Section, context: ReportContext) -> list[Html]:
    """Error over coverage, when the least confident predictions are deferred to a person; [] if no score is a probability."""
    curves = {row.encoder: c for row in rows_with_most_labels(section) if (c := row_risk_curve(row.records)) is not None}
    if not curves:
        return []
    top = max(c.top for c in curves.values())
    frame = Frame((0.0, 1.0), (0.0, max(math.ceil(top * 20) / 20, 0.05)))
    panels, charts = split_panels(curves, context.pens), []
    for i, names in enumerate(panels):
        marks = [
            group_curve(context.display_names[n], [draw_line(frame, curves[n].coverage, curves[n].risk, context.pens[n])]) for n in names
        ]
        title = panel_title(f"risk and coverage, {protocol_title(section)}", i, len(panels))
        svg = draw_chart(frame, marks, title, "coverage: share of predictions kept", "risk: error among them")
        charts.append(chart_figure(svg, names, context))
    return charts


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
