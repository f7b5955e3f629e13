"""Strategies of fine-tuning side by side, with what they cost: the table of `records/strategies.md` on the page."""

from encoders.runtime.html import Html, html_table, join_html, tag
from transfer.report.context import Block, ReportContext
from transfer.tables.strategy_rows import build_strategy_tables
from transfer.tables.strategy_table import STRATEGY_HEADER, describe_table, format_line


def strategies_section(block: Block, context: ReportContext) -> Html | None:
    """A table for every encoder of the task with several strategies at equal budget; None if no encoder has several."""
    parts: list[Html] = []
    tables = build_strategy_tables(block) if context.study is None else context.study
    for lines in (table for table in tables if any(table[0].section is section for section in block)):
        title, note = describe_table(lines, context.display_names[lines[0].row.encoder])
        cells = [format_line(line, lines[0]) for line in lines]
        parts += [tag("h4", title), html_table(STRATEGY_HEADER, cells), tag("p", f"{note}.", class_="note")]
    return join_html(parts) if parts else None
