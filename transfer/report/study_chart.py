"""The strategies of a study over the number of labeled patients: a chart for each encoder, with its own scale of AUROC."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from encoders.runtime.html import Html, tag
from encoders.runtime.svg import line_style
from transfer.report.panels import MAX_CURVES, render_line_keys
from transfer.report.plots import draw_label_curves, label_axis
from transfer.tables.rows import Row
from transfer.tables.strategy_rows import StrategyLine


def strategy_charts(task: str, tables: Sequence[Sequence[StrategyLine]], display_names: Mapping[str, str]) -> Html | None:
    """The charts of a task under one legend; None if there is one number of labels.

    A chart has at most six strategies; more are divided between charts."""
    rows: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for table in tables:
        for line in table:
            if line.section.task == task:
                rows[display_names[line.row.encoder]][line.strategy].append(line.row)
    every = [row for own in rows.values() for same in own.values() for row in same]
    if len({row.labels_order for row in every}) < 2:
        return None
    strategies = list(dict.fromkeys(name for own in rows.values() for name in own))
    pens = {name: line_style(i) for i, name in enumerate(strategies)}
    charts = []
    for encoder, own in rows.items():
        axis = label_axis([row for same in own.values() for row in same])
        for start in range(0, len(strategies), MAX_CURVES):
            curves = [(name, own[name], pens[name]) for name in strategies[start : start + MAX_CURVES] if name in own]
            charts.append(tag("figure", axis.draw(draw_label_curves(axis, curves), encoder)))
    note = (
        "Whiskers: 95 % intervals over test patients, draws of the labeled patients and seeds. Each encoder has its own scale of AUROC, so "
        "that its strategies can be told apart."
    )
    return tag("div", render_line_keys(pens), tag("div", *charts, class_="grid"), tag("p", note, class_="note"))
