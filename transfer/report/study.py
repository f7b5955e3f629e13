"""The tables of a study on the page: which strategy when, labels needed instead, and cost."""

from encoders.runtime.html import Html, html_table, join_html, tag
from transfer.report.context import Block, ReportContext
from transfer.tables.study_table import build_study_tables


def study_section(block: Block, context: ReportContext) -> Html | None:
    """All tables of the study; None for a page of other records.  block: all sections of the page."""
    if context.study is None:
        return None
    parts: list[Html] = []
    for table in build_study_tables(block, context.study):
        parts += [tag("h3", table.title.capitalize()), html_table(table.header, table.rows), tag("p", f"{table.note}.", class_="note")]
    return join_html(parts)
