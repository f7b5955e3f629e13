"""Deep ensembles on the page: ranking and calibration, if `transfer report` was asked for them."""

from encoders.runtime.html import Html, html_table, join_html, tag
from transfer.report.context import Block, ReportContext
from transfer.tables.ensemble_table import tabulate_ensembles


def ensembles_section(block: Block, context: ReportContext) -> Html | None:
    """The tables of the ensembles of a task; None without ensembles."""
    own = [e for e in context.ensembles if any(e.section is section for section in block)]
    if not own:
        return None
    parts: list[Html] = []
    for table in tabulate_ensembles(own, context.display_names):
        parts += [tag("h4", table.title), html_table(table.header, table.lines), tag("p", f"{table.note}.", class_="note")]
    return join_html(parts)
