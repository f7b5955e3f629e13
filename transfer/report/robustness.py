"""Robustness to acquisition shifts: AUROC over the strength of each shift. Selection uses unshifted validation images."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from encoders.runtime.html import Html, collapsible_section, html_table, join_html, tag
from encoders.runtime.svg import Frame, draw_chart, draw_dots, draw_line, draw_whiskers
from transfer.protocols import describe_protocol
from transfer.report.context import Block, ReportContext
from transfer.report.panels import draw_legend, group_curve, panel_title, split_panels
from transfer.report.plots import axis_limits, chart_figure
from transfer.tables.shift_curves import ShiftCurve, build_shift_curves, build_shift_tables


def robustness_section(block: Block, context: ReportContext) -> Html | None:
    """One chart per protocol and shift; None if no image was shifted."""
    settings = {(s.protocol, s.protocol_hash, s.precision) for s in block}
    own = [r for r in context.records if r.identity.task == block[0].task and r.identity.partition == block[0].partition]
    curves = [c for c in build_shift_curves(own) if (c.protocol, c.protocol_hash, c.precision) in settings and c.encoder in context.pens]
    if not curves:
        return None
    panels: dict[tuple[str, str], list[ShiftCurve]] = defaultdict(list)
    most = max(c.fraction for c in curves)
    for c in curves:
        if c.fraction == most:
            panels[c.protocol, c.shift].append(c)
    charts = [chart for (protocol, shift), same in panels.items() for chart in _shift_charts(protocol, shift, same, context)]
    numbers = [join_html([tag("h4", title), html_table(header, rows, "small")]) for title, header, rows in build_shift_tables(curves)]
    note = (
        "Strength 0 is the unshifted image. Hyper-parameters and thresholds are chosen on unshifted validation images. Whiskers: 95 % "
        "intervals over test patients. Each strength counts as one use of the test part."
    )
    return join_html(
        [
            draw_legend(block, context),
            tag("div", *charts, class_="grid"),
            tag("p", note, class_="note"),
            collapsible_section("In numbers", *numbers),
        ]
    )


def _shift_charts(protocol: str, shift: str, curves: Sequence[ShiftCurve], context: ReportContext) -> list[Html]:
    points = [p.auroc for c in curves for p in c.points]
    strengths = sorted({p.strength for c in curves for p in c.points})
    frame = Frame((strengths[0] - 0.3, strengths[-1] + 0.3), axis_limits([end for interval in points for end in interval.ends]))
    panels, charts = split_panels((c.encoder for c in curves), context.pens), []
    for k, names in enumerate(panels):
        marks: list[Html] = []
        same = [c for c in curves if c.encoder in names]
        for i, c in enumerate(same):
            # Shifted sideways, so that the whiskers of two encoders do not cover each other.
            x = np.array([p.strength for p in c.points]) + 0.06 * (i - (len(same) - 1) / 2)
            y, low, high = np.array([p.auroc.ends for p in c.points]).T
            pen = context.pens[c.encoder]
            own = [draw_line(frame, x, y, pen), *draw_whiskers(frame, x, low, high, pen), *draw_dots(frame, x, y, pen)]
            marks.append(group_curve(context.display_names[c.encoder], own))
        title = panel_title(f"{shift}, {describe_protocol(protocol)}", k, len(panels))
        svg = draw_chart(frame, marks, title, f"strength of {shift} ({curves[0].unit})", "AUROC", strengths)
        charts.append(chart_figure(svg, names, context))
    return charts
