"""The section of a report with published results beside one's own rows."""

from encoders.runtime.html import Html, html_table, join_html, tag
from transfer.report.context import Block, ReportContext
from transfer.report.published.tables import (
    NOT_COMPARED,
    PUBLISHED_HEADER,
    PUBLISHED_MARK,
    describe_official_split,
    describe_sources,
    find_published_results,
    format_published_row,
    number_sources,
)
from transfer.report.tables import protocol_title
from transfer.tables.format import format_interval
from transfer.tables.rows import Row, Section, rows_with_most_labels


def published_section(block: Block, context: ReportContext) -> Html | None:
    """One's own rows, then published ones, with their sources; None if the data set has no published results."""
    found = find_published_results(block)
    if not found:
        return None
    known = found[0].known
    if known is None:
        return tag("p", f"None are shown: {found[0].reason}.", class_="note")
    own = [_own_row(section, row, context) for section in block for row in rows_with_most_labels(section)]
    numbers = number_sources(known)
    rows = (format_published_row(row, numbers) for row in known.results)
    published = [[model, PUBLISHED_MARK, *rest] for model, *rest in rows]
    sources = tag("ul", *(tag("li", line) for line in describe_sources(known)), class_="captions")
    table = html_table([PUBLISHED_HEADER[0], "origin", *PUBLISHED_HEADER[1:]], own + published, "small")
    return join_html([tag("p", NOT_COMPARED), table, tag("p", describe_official_split(known), class_="note"), sources])


def _own_row(section: Section, row: Row, context: ReportContext) -> list[str]:
    size = row.records[0].meta.size
    auroc, balanced = format_interval(row.metrics["auroc"]), format_interval(row.metrics["balanced_accuracy"])
    name = context.display_names[row.encoder]
    return [
        name,
        "this benchmark",
        row.role,
        protocol_title(section) + row.labels_title,
        f"{size} px" if size else "",
        auroc,
        "",
        balanced,
        "",
    ]
