"""Prediction sets of every encoder of a task on the page: how often they hold the true class, and how large they are."""

from encoders.runtime.html import Html, html_table, join_html, tag
from transfer.metrics.set_rule import SetRule
from transfer.report.context import Block, ReportContext, leak_warnings
from transfer.report.tables import protocol_title
from transfer.tables.prediction_sets import SET_HEADER, row_sets
from transfer.tables.rows import rows_with_most_labels

REPORT_SETS = SetRule(0.9)


def prediction_sets_section(block: Block, context: ReportContext) -> Html | None:
    """One table for all protocols; None for several labels an image, and where no encoder has probabilities."""
    lines = []
    for section in block:
        for row in rows_with_most_labels(section):
            sets = row_sets(row, REPORT_SETS)
            if sets is not None:
                lines.append([context.display_names[row.encoder], protocol_title(section), *sets.cells()])
    if not lines:
        return None
    header = ["encoder", "protocol", *SET_HEADER]
    note = f"{REPORT_SETS.describe()}. Other sets: transfer compare --sets."
    return join_html([*leak_warnings(block, context), html_table(header, lines), tag("p", note, class_="note")])
