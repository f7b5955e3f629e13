"""Per-class AUROC and decisions of a task, one protocol after the other.

Decisions are decision curves, operating points, confusion matrices and every metric.
"""

from encoders.runtime.html import Html, collapsible_section, join_html, tag
from transfer.report import tables
from transfer.report.confusion import draw_confusion_matrices
from transfer.report.context import Block, ReportContext, leak_warnings
from transfer.report.decision_chart import decision_curves_part
from transfer.tables.operating_points import CALIBRATION_NOTE
from transfer.tables.rows import Section


def class_auroc_section(block: Block, context: ReportContext) -> Html | None:
    """The AUROC of each class; None for a task with one class."""
    class_tables = [(s, table) for s in block if (table := tables.class_table(s, context.display_names)) is not None]
    if not class_tables:
        return None
    return join_html(
        [part for s, table in class_tables for part in (tag("h4", tables.protocol_title(s)), table, _label_differences(s, context))]
    )


def _label_differences(section: Section, context: ReportContext) -> Html:
    """The paired difference of every label, in a part that opens on a click."""
    table = tables.label_differences(section, context.display_names)
    return join_html([]) if table is None else collapsible_section("Paired difference of each label", table)


def decisions_section(block: Block, context: ReportContext) -> Html:
    """Decision curves, operating points and confusion matrices per protocol, the first one open, and every metric."""
    names, rule = context.display_names, context.rule
    kind = block[0].rows[0].records[0].meta.kind
    how = (
        "Decisions by the largest score. Counts are test images."
        if kind == "multiclass"
        else f"{rule.describe()}. Counts are test images. {CALIBRATION_NOTE}."
    )
    body: list[Html] = [tag("p", how, class_="note")]
    curves = decision_curves_part(block, context)
    body += [*leak_warnings(block, context), curves] if curves is not None else []
    for i, s in enumerate(block):
        found = (tables.operating_table(s, names, rule), draw_confusion_matrices(s, names, rule))
        parts = [part for part in found if part is not None]
        title = tables.protocol_title(s)
        body.append(join_html([tag("h4", title), *parts]) if i == 0 else collapsible_section(title, *parts))
    body += [collapsible_section(f"Every metric, {tables.protocol_title(s)}", tables.all_metrics_table(s, names, rule)) for s in block]
    return join_html(body)
