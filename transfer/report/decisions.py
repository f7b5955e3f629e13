"""Per-class AUROC and decisions of a task: operating points, confusion matrices and every metric, one protocol after the other."""

from encoders.runtime.html import Html, collapsible_section, join_html, tag
from transfer.report import tables
from transfer.report.context import Block, ReportContext


def class_auroc_section(block: Block, context: ReportContext) -> Html | None:
    """The AUROC of each class; None for a task with one class."""
    class_tables = [(s, table) for s in block if (table := tables.class_table(s, context.display_names)) is not None]
    if not class_tables:
        return None
    return join_html([part for s, table in class_tables for part in (tag("h4", tables.protocol_title(s)), table)])


def decisions_section(block: Block, context: ReportContext) -> Html:
    """Operating points and confusion matrices per protocol, the first one open, and every metric."""
    names, rule = context.display_names, context.rule
    kind = block[0].rows[0].records[0].meta.kind
    how = (
        "Decisions by the largest score. Counts are test images." if kind == "multiclass" else f"{rule.describe()}. Counts are test images."
    )
    body: list[Html] = [tag("p", how, class_="note")]
    for i, s in enumerate(block):
        found = (tables.operating_table(s, names, rule), tables.draw_confusion_matrices(s, names, rule))
        parts = [part for part in found if part is not None]
        title = tables.protocol_title(s)
        body.append(join_html([tag("h4", title), *parts]) if i == 0 else collapsible_section(title, *parts))
    body += [collapsible_section(f"Every metric, {tables.protocol_title(s)}", tables.all_metrics_table(s, names, rule)) for s in block]
    return join_html(body)
