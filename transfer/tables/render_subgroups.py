"""Subgroup tables on a terminal, and all their metrics as CSV."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from encoders.runtime.escape import lines_to_csv
from transfer.records.redactor import Redactor
from transfer.tables import render
from transfer.tables.format import format_difference, format_interval
from transfer.tables.rows import Row, Section, rows_by_records
from transfer.tables.subgroups import Subgroup, compute_subgroups
from transfer.tables.terminal_table import build_table

if TYPE_CHECKING:
    from rich.console import Console

SUBGROUP_COLUMNS = {"sensitivity": "sens.", "specificity": "spec.", "ppv": "PPV", "npv": "NPV", "ece_equal_mass": "ECE", "brier": "Brier"}


def gather_subgroups(sections: Sequence[Section], by: Sequence[str], bands: Sequence[float]) -> list[tuple[Section, Row, list[Subgroup]]]:
    """The subgroups of every row with the largest label fraction of its section."""
    most = {id(s): max((row.fraction for row in s.rows), default=1.0) for s in sections}
    return [
        (s, row, compute_subgroups(row.records, by, bands)) for s in sections for row in rows_by_records(s) if row.fraction == most[id(s)]
    ]


def print_subgroups(console: "Console", groups: Sequence[tuple[Section, Row, list[Subgroup]]], display_names: Mapping[str, str]) -> None:
    """Prints one table per encoder and protocol, with warnings below it."""
    from rich.text import Text

    for section, row, subgroups in groups:
        title = Text(f"{section.task}, {section.protocol}, {display_names[row.encoder]}: by group of test images")
        rates = [name for name in SUBGROUP_COLUMNS if name in subgroups[0].metrics]
        columns = (
            "group",
            "patients",
            "images",
            "AUROC [95 %]",
            "to all others [95 %]",
            "balanced acc.",
            *(SUBGROUP_COLUMNS[n] for n in rates),
        )
        table = build_table(title, columns)
        for g in subgroups:
            table.add_row(
                g.title,
                str(g.patients),
                str(g.images),
                format_interval(g.intervals["auroc"]),
                format_difference(g.gap),
                *(format_number(g.metrics[name]) for name in ("balanced_accuracy", *rates)),
            )
        console.print(table)
        for line in build_subgroup_captions(row, subgroups):
            console.print(Text(f"  {line}"), style="yellow" if line.startswith(("LEAK", "warn")) else "dim")


def build_subgroup_captions(row: Row, subgroups: Sequence[Subgroup]) -> list[str]:
    """Gaps that are significant after Holm correction, subgroups with insufficient patients, and leaks."""
    gaps = [g for g in subgroups if g.gap is not None]
    lines = ["thresholds are chosen on all validation patients; gaps are AUROC differences to all other test images"]
    for g in gaps:
        if g.holm_p < 0.05:
            assert g.gap is not None
            lines.append(f"{g.title}: AUROC {g.gap.verdict} than for all others (Holm p {g.holm_p:.3g} over {len(gaps)} gaps)")
    lines += [f"warning: {g.title}: {note}" for g in gaps for note in g.notes]
    return lines + [f"LEAKAGE ALLOWED: {leak}" for leak in Redactor(row.records).redact_all(render.list_allowed_leaks(row))]


def format_number(value: float) -> str:
    """Three decimals; "" for NaN."""
    return "" if math.isnan(value) else f"{value:.3f}"


def subgroups_to_csv(groups: Sequence[tuple[Section, Row, list[Subgroup]]]) -> str:
    """One line per subgroup, every metric with six decimals."""
    return lines_to_csv([_subgroup_line(section, row, g) for section, row, subgroups in groups for g in subgroups])


def _subgroup_line(section: Section, row: Row, g: Subgroup) -> dict[str, object]:
    where = {"task": section.task, "protocol": section.protocol, "protocol_hash": section.protocol_hash, "encoder": row.encoder}
    size = {
        "by": g.column, "group": g.name, "patients": g.patients, "images": g.images, "patients_in_smaller_class": g.smaller_class_patients
    }  # fmt: skip
    line: dict[str, object] = {**where, **size, **{name: f"{value:.6f}" for name, value in g.metrics.items()}}
    for name, value in g.intervals.items():
        line |= {f"{name}_low": f"{value.low:.6f}", f"{name}_high": f"{value.high:.6f}"}
    if g.gap is not None:
        line |= {"gap": f"{g.gap.value:.6f}", "gap_low": f"{g.gap.low:.6f}", "gap_high": f"{g.gap.high:.6f}"}
        line |= {"gap_p": f"{g.gap.p:.6g}", "gap_p_holm": f"{g.holm_p:.6g}"}
    return {**line, "leakage": "; ".join(render.list_allowed_leaks(row)), "notes": "; ".join(g.notes)}
