"""What acquisition shifts do: the AUROC over the strength of each shift, chosen on clean validation images and frozen."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from encoders.runtime.html import Html, collapsible_section, html_table, join_html, tag
from encoders.runtime.svg import Frame, draw_chart, draw_dots, draw_line, draw_whiskers
from transfer.protocols import describe_protocol
from transfer.records.record import Record
from transfer.report.plots import MAX_CURVES, Pens, axis_limits, draw_legend
from transfer.tables import shift_curves
from transfer.tables.rows import Section
from transfer.tables.shift_curves import ShiftCurve


def robustness_section(block: Sequence[Section], records: Sequence[Record], shown: Mapping[str, str], pens: Pens) -> Html | None:
    """The curves of a task, a chart a protocol and shift; None where no image was shifted."""
    hashes = {(s.protocol, s.protocol_hash) for s in block}
    here = [r for r in records if r.identity.task == block[0].task and r.identity.partition == block[0].partition]
    found = [c for c in shift_curves.build_shift_curves(here) if (c.protocol, c.protocol_hash) in hashes and c.encoder in pens]
    if not found:
        return None
    panels: dict[tuple[str, str], list[ShiftCurve]] = defaultdict(list)
    most = max(c.fraction for c in found)
    for c in found:
        if c.fraction == most:
            panels[c.protocol, c.shift].append(c)
    charts = [_shift_chart(kind, shift, same[:MAX_CURVES], pens) for (kind, shift), same in panels.items()]
    exact = [
        join_html([tag("h4", title), html_table(header, rows, "small")]) for title, header, rows in shift_curves.build_shift_tables(found)
    ]
    about = (
        "Strength 0 is the image as it is. Everything was chosen on unshifted validation images; whiskers are 95 % intervals over test "
        "patients, and each strength counts as a look at the test part."
    )
    note = tag("p", about, class_="note")
    body = [draw_legend(block, shown, pens), tag("div", *charts, class_="grid"), note, collapsible_section("In numbers", *exact)]
    return join_html([tag("h3", "Under acquisition shift"), *body])


def _shift_chart(kind: str, shift: str, same: Sequence[ShiftCurve], pens: Pens) -> Html:
    points = [p.auroc for c in same for p in c.points]
    strengths = sorted({p.strength for c in same for p in c.points})
    frame = Frame((strengths[0] - 0.3, strengths[-1] + 0.3), axis_limits([v for a in points for v in (a.value, a.low, a.high)]))
    marks: list[Html] = []
    for i, c in enumerate(same):
        x = np.array([p.strength for p in c.points]) + 0.06 * (i - (len(same) - 1) / 2)  # side by side, so that no whisker hides another
        y, low, high = (np.array([getattr(p.auroc, end) for p in c.points]) for end in ("value", "low", "high"))
        pen = pens[c.encoder]
        marks += [draw_line(frame, x, y, pen), *draw_whiskers(frame, x, low, high, pen), *draw_dots(frame, x, y, pen)]
    title = f"{shift}, {describe_protocol(kind)}"
    return tag("figure", draw_chart(frame, marks, title, f"strength of {shift} ({same[0].unit})", "AUROC", strengths))
