"""The tables of a study on the page, with a chart of the strategies over the number of labels."""

from encoders.runtime.html import Html, html_table, join_html, tag
from transfer.report.context import Block, ReportContext
from transfer.report.study_chart import strategy_charts
from transfer.tables.study_table import build_study_tables


def study_section(block: Block, context: ReportContext) -> Html | None:
    """All tables of the study; None for a page of other records.  block: all sections of the page."""
    if context.study is None:
        return None
    parts: list[Html] = []
    for table in build_study_tables(block, context.study):
        parts.append(tag("h3", table.title.capitalize()))
        if table.task and (charts := strategy_charts(table.task, context.study, context.display_names)) is not None:
            parts.append(charts)
        parts += [html_table(table.header, table.rows), tag("p", f"{table.note}.", class_="note")]
    return join_html(parts)
