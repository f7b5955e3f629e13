"""The decision curves of a task: net benefit over the threshold probability, against treating everybody and nobody."""

import math
from collections.abc import Sequence

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.html import Html, join_html, tag
from encoders.runtime.svg import Frame, LineStyle, draw_band, draw_chart, draw_line
from transfer.records.cached_results import cached_result
from transfer.report.context import Block, ReportContext
from transfer.report.panels import MAX_BANDS, draw_legend, group_curve, panel_title, split_panels
from transfer.report.plots import chart_figure
from transfer.report.tables import protocol_title
from transfer.tables.decision_curves import CURVE_RESAMPLES, row_decision_curves
from transfer.tables.rows import Row, Section, rows_with_most_labels

STEPS = 100  # thresholds of a curve
TREAT_ALL, TREAT_NONE = LineStyle("#777777", None), LineStyle("#777777", "1 3")
# Thresholds up to four times the prevalence (at least 0.1) are drawn: beyond, treating everybody only does harm.
PREVALENCES_SHOWN, LEAST_SHOWN, MOST_SHOWN = 4.0, 0.1, 0.99
DEPTH_SHOWN = 0.25  # how far below zero the axis goes, as a share of the prevalence


def decision_curves_part(block: Block, context: ReportContext) -> Html | None:
    """One chart per protocol with how to read them; None without probabilities of a binary or multi-label task."""
    charts = [chart for s in block for chart in decision_curve_charts(s, context)]
    if not charts:
        return None
    several = len(block[0].rows[0].records[0].meta.classes) > 1
    at = "of the test part" if context.rule.prevalence is None else f"{context.rule.prevalence:g}"
    mean = "Mean over the labels. " if several else ""
    note = (
        f"{mean}Net benefit per image: patients found, minus false alarms weighted by the odds of the threshold, at the prevalence {at} "
        "(Vickers and Elkin 2006). Solid grey: everybody is treated; dotted grey: nobody. An encoder is useful at a threshold where its "
        f"curve is above both. Bands: pointwise 95 % intervals from {CURVE_RESAMPLES} resamples of the test patients. Probabilities are "
        "not tempered."
    )
    legend, grid = draw_legend(block, context), tag("div", *charts, class_="grid")
    return join_html([tag("h4", "Decision curves"), legend, grid, tag("p", note, class_="note")])


def decision_curve_charts(section: Section, context: ReportContext) -> list[Html]:
    """The decision curves of a section; [] for a multi-class task, and where no encoder has probabilities."""
    rows, prevalence = rows_with_most_labels(section), context.rule.prevalence
    thresholds = choose_thresholds_shown(rows, prevalence)
    found = [(row, row_decision_curves(row.records, thresholds, prevalence)) for row in rows]
    curves = {row.encoder: labels[0] for row, labels in found if labels and not math.isnan(labels[0].prevalence)}
    if not curves:
        return []
    first = next(iter(curves.values()))
    frame = Frame((0.0, float(thresholds[-1])), (-DEPTH_SHOWN * first.prevalence, 1.05 * first.prevalence))
    bottom = frame.y[0]
    panels, charts = split_panels(curves, context.pens), []
    for i, names in enumerate(panels):
        marks = [*draw_above(frame, thresholds, first.treat_all, bottom, TREAT_ALL)]
        marks.append(draw_line(frame, thresholds, np.zeros(len(thresholds)), TREAT_NONE))
        for k, name in enumerate(names):
            c, pen = curves[name], context.pens[name]
            band = draw_band(frame, thresholds, np.clip(c.low, *frame.y), np.clip(c.high, *frame.y), pen)
            lines = draw_above(frame, thresholds, c.benefit, bottom, pen)
            marks.append(group_curve(context.display_names[name], lines, band, k < MAX_BANDS))
        title = panel_title(f"decision curve, {protocol_title(section)}", i, len(panels))
        charts.append(chart_figure(draw_chart(frame, marks, title, "threshold probability", "net benefit"), names, context))
    return charts


def choose_thresholds_shown(rows: Sequence[Row], prevalence: float | None) -> Array:
    """(T,) the thresholds of a chart, up to a multiple of the mean prevalence of the labels."""
    if prevalence is None:
        prevalence = mean_prevalence(rows[0])
    last = min(max(PREVALENCES_SHOWN * prevalence, LEAST_SHOWN), MOST_SHOWN)
    return np.asarray(np.linspace(0, last, STEPS + 1)[1:])


def mean_prevalence(row: Row) -> float:
    """The share of positives in the test part, the mean over labels."""

    def measure() -> float:
        y = np.concatenate([r.arrays["test_y"] for r in row.records])
        known = np.maximum((~np.isnan(y)).sum(axis=0), 1)
        return float(((y > 0.5).sum(axis=0) / known).mean())

    return cached_result("prevalence", row.records, (), float, measure)


def draw_above(frame: Frame, x: Array, y: Array, bottom: float, pen: LineStyle) -> list[Html]:
    """The parts of a line that are not below `bottom`, each as a line of its own."""
    inside = np.flatnonzero(y >= bottom)  # NaN is not
    runs = np.split(inside, np.flatnonzero(np.diff(inside) > 1) + 1)
    return [draw_line(frame, x[run], y[run], pen) for run in runs if len(run) > 1]
