"""Labels saved: the number of labeled patients that the baseline needs to reach an encoder's AUROC."""

from collections import Counter
from collections.abc import Mapping

from encoders.runtime.html import Html, html_table, join_html, tag
from transfer.report.context import Block, ReportContext
from transfer.report.tables import protocol_title
from transfer.tables.format import format_interval
from transfer.tables.labels_needed import SAVINGS_RESAMPLES, count_needed, labeled_patients
from transfer.tables.rows import Section


def label_savings_section(block: Block, context: ReportContext) -> Html | None:
    """The table of a task; None if no baseline was benchmarked at several label fractions."""
    lines = [line for s in block for line in _savings_lines(s, context.display_names)]
    if not lines:
        return None
    note = (
        "Number of labeled patients with which the baseline reaches the AUROC of the encoder. Between label fractions it is interpolated "
        "linearly over the logarithm of the number of patients; beyond them only a bound is given (≤, >). Intervals: 95 %, from "
        f"{SAVINGS_RESAMPLES} resamples of the test patients and of the draws of the labeled patients. A "
        "negative number of patients saved means that the baseline needs fewer."
    )
    header = ["encoder", "protocol", "patients", "AUROC", "baseline", "baseline needs", "95 % interval", "patients saved"]
    return join_html([html_table(header, lines), tag("p", note, class_="note")])


def _savings_lines(s: Section, display_names: Mapping[str, str]) -> list[list[str]]:
    """One line per number of labeled patients of every encoder that has a reference."""
    sizes = Counter(row.encoder for row in s.rows)
    compared = [row for row in s.rows if row.primary is not None and sizes[row.reference] > 1]
    compared = [row for row in compared if row.role == "encoder"] or compared
    lines = []
    for row in compared:
        needed = count_needed(row, [r for r in s.rows if r.encoder == row.reference], s.judged)
        start = [display_names[row.encoder], protocol_title(s), str(labeled_patients(row)), format_interval(row.metrics["auroc"])]
        lines.append([*start, display_names[row.reference], needed.patients, needed.interval, needed.saved])
    return lines
