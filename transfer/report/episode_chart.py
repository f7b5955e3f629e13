"""Single few-shot episodes of every encoder as a chart: the AUROC that one draw of the labeled images gives."""

from typing import NamedTuple

import numpy as np

from encoders.runtime.html import Html, join_html, tag
from encoders.runtime.svg import Frame, draw_chart, draw_dots, draw_line, draw_whiskers
from transfer.records.cached_results import cached_result
from transfer.records.episodes import read_episodes
from transfer.report.context import Block, ReportContext
from transfer.report.panels import draw_legend, group_curve, panel_title, split_panels
from transfer.report.plots import axis_limits, chart_figure
from transfer.report.tables import protocol_title
from transfer.tables.rows import Row, Section

ENDS = (0.1, 0.9)  # quantiles over episodes


class EpisodeSpread(NamedTuple):
    """AUROC of single episodes at a number of shots: the mean, and the ends of the whisker."""

    shots: int
    mean: float
    low: float
    high: float


def episodes_section(block: Block, context: ReportContext) -> Html | None:
    """One chart per protocol with episodes; None without any."""
    charts = [chart for s in block for chart in _episode_charts(s, context)]
    if not charts:
        return None
    exact = all(r.meta.episode_supports for s in block for row in s.rows for r in row.records if r.meta.episodes)
    ends = "the middle 80 % of the episodes" if exact else "one standard deviation over the episodes, where a record has no single ones"
    note = (
        f"One episode is one draw of the labeled images. Dots: mean over episodes; whiskers: {ends}, which is what one draw can give. "
        "They are no confidence intervals: those are in the results table."
    )
    return join_html([draw_legend(block, context), tag("div", *charts, class_="grid"), tag("p", note, class_="note")])


def spread_of_episodes(row: Row) -> list[EpisodeSpread]:
    """The spread at every number of shots that all records of a row have; [] for a protocol without episodes.

    Mean over records. Records without single episodes have the mean and one standard deviation to each side."""

    def measure() -> list[EpisodeSpread]:
        tables = [record.meta.episodes for record in row.records]
        single = [read_episodes(record) for record in row.records]
        spreads = []
        for shots in sorted(map(int, set.intersection(*(set(table) for table in tables)))):
            ends = []
            for table, episodes in zip(tables, single, strict=True):
                mean, sd = (table[str(shots)][name] for name in ("mean", "sd"))
                low, high = np.quantile(episodes[shots].auroc, ENDS) if shots in episodes else (mean - sd, mean + sd)
                ends.append((mean, low, high))
            spreads.append(EpisodeSpread(shots, *np.mean(ends, axis=0).tolist()))
        return spreads

    return cached_result("episode spread", row.records, (), list[EpisodeSpread], measure)


def _episode_charts(section: Section, context: ReportContext) -> list[Html]:
    rows = {row.encoder: row for row in section.rows if not row.seeds}  # the rows of all numbers of shots have the same records
    spreads = {name: found for name, row in rows.items() if (found := spread_of_episodes(row))}
    if not spreads:
        return []
    shots = sorted({s.shots for found in spreads.values() for s in found})
    frame = Frame((shots[0] / 1.5, shots[-1] * 1.5), axis_limits([end for f in spreads.values() for s in f for end in s[1:]]), log=True)
    panels, charts = split_panels(spreads, context.pens), []
    for k, names in enumerate(panels):
        marks = []
        for i, name in enumerate(names):
            pen = context.pens[name]
            x, y, low, high = np.array(spreads[name], dtype=float).T
            x = x * 1.06 ** (i - (len(names) - 1) / 2)  # sideways, so that whiskers do not cover each other
            own = [draw_line(frame, x, y, pen), *draw_whiskers(frame, x, low, high, pen), *draw_dots(frame, x, y, pen)]
            marks.append(group_curve(context.display_names[name], own))
        title = panel_title(f"single episodes, {protocol_title(section)}", k, len(panels))
        charts.append(chart_figure(draw_chart(frame, marks, title, "shots per class (log)", "AUROC of an episode", shots), names, context))
    return charts
