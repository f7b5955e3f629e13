"""Every label of a task on its own: AUROC and AP with intervals, and the paired difference to the strongest baseline with its p-value.

The p-values of one comparison are corrected for its number of labels (Holm). They are not part of the table's family of tests, whose
verdicts are about the mean over labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transfer.stats import Difference, Interval, correct_family
from transfer.tables.comparisons import compare_rows
from transfer.tables.format import format_difference, format_interval, format_p
from transfer.tables.row_estimates import class_counts, row_interval
from transfer.tables.rows import Row, Section, rows_by_records

LABEL_HEADER = (
    "label", "test patients with, without", "encoder", "AUROC [95 %]", "AP [95 %]", "compared with", "AUROC difference [95 %]",
    "p (DeLong)", "p (Holm, labels)",
)  # fmt: skip


@dataclass(frozen=True)
class LabelLine:
    """One label of one row. difference: to the row's strongest baseline, corrected for the number of labels; None without one."""

    section: Section
    row: Row
    label: str
    positive: int
    negative: int
    auroc: Interval
    ap: Interval
    difference: Difference | None


def list_labels(section: Section) -> list[LabelLine]:
    """All labels of the rows with all test images, label by label; [] for a task with one label."""
    rows = rows_by_records(section)
    if not rows or len(rows[0].records[0].meta.classes) < 2:
        return []
    by_row = [_row_labels(section, row) for row in rows]
    return [line for lines in zip(*by_row, strict=True) for line in lines]


def _row_labels(section: Section, row: Row) -> list[LabelLine]:
    classes, counts = row.records[0].meta.classes, class_counts(row.records)
    reference = next((r for r in section.rows if r.encoder == row.reference and (r.fraction, r.shots) == (row.fraction, row.shots)), None)
    metric = row.auroc_name
    each = [None if reference is None else compare_rows(row, reference, [c], metric=metric) for c in range(len(classes))]
    corrected = iter(correct_family([d for d in each if d is not None]))
    differences = [None if d is None else next(corrected) for d in each]
    return [
        LabelLine(
            section, row, name, int(counts[c, 1]), int(counts[c, 0]), row_interval(row.records, metric, [c]),
            row_interval(row.records, "ap", [c]), differences[c],
        )
        for c, name in enumerate(classes)
    ]  # fmt: skip


def format_labels(lines: Sequence[LabelLine], display_names: Mapping[str, str]) -> list[tuple[str, ...]]:
    """The lines as text, with the columns of LABEL_HEADER."""
    return [
        (
            line.label,
            f"{line.positive}, {line.negative}",
            display_names[line.row.encoder] + line.row.labels_title,
            format_interval(line.auroc),
            format_interval(line.ap),
            display_names.get(line.row.reference, "") if line.difference else "",
            format_difference(line.difference),
            format_p(line.difference.p) if line.difference else "",
            format_p(line.difference.holm_p) if line.difference else "",
        )
        for line in lines
    ]


def label_csv_lines(sections: Sequence[Section]) -> list[dict[str, object]]:
    """One line per label and row, with full numbers."""
    return [_label_csv_line(line) for section in sections for line in list_labels(section)]


def _label_csv_line(line: LabelLine) -> dict[str, object]:
    row, d = line.row, line.difference
    out: dict[str, object] = {
        "task": line.section.task,
        "protocol": line.section.protocol,
        "encoder": row.encoder,
        "fraction": row.fraction,
    }
    out |= {"shots": "" if row.shots is None else row.shots, "label": line.label}
    out |= {"test_patients_with": line.positive, "test_patients_without": line.negative}
    for name, value in (("auroc", line.auroc), ("ap", line.ap)):
        out |= {name: f"{value.value:.6f}", f"{name}_low": f"{value.low:.6f}", f"{name}_high": f"{value.high:.6f}"}
    if d is not None:
        out |= {
            "versus": row.reference,
            "difference": f"{d.value:.6f}",
            "difference_low": f"{d.low:.6f}",
            "difference_high": f"{d.high:.6f}",
        }
        out |= {"p_delong": f"{d.p:.6g}", "p_holm_labels": f"{d.holm_p:.6g}", "verdict": d.reported_verdict, "note": d.note}
    return out
