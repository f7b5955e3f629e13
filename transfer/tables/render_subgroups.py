"""Subgroup tables as people read them: on a terminal, and every metric as CSV."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from transfer.tables import render
from transfer.tables.rows import Row, Section
from transfer.tables.subgroups import Subgroup, compute_subgroups

SUBGROUP_COLUMNS = {"sensitivity": "sens.", "specificity": "spec.", "ppv": "PPV", "npv": "NPV", "ece_equal_mass": "ECE", "brier": "Brier"}


def gather_subgroups(parts: Sequence[Section], by: Sequence[str], bands: Sequence[float]) -> list[tuple[Section, Row, list[Subgroup]]]:
    """The groups of every row that was trained on all labels it had."""
    most = {id(s): max((row.fraction for row in s.rows), default=1.0) for s in parts}
    return [(s, row, compute_subgroups(row.records, by, bands)) for s in parts for row in s.rows if row.fraction == most[id(s)]]


def print_subgroups(console: Any, groups: Sequence[tuple[Section, Row, list[Subgroup]]], shown: Mapping[str, str]) -> None:
    """A table for each encoder and protocol, and below it what bids caution."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    for section, row, mine in groups:
        title = Text(f"{section.task}, {section.protocol}, {shown[row.encoder]}: by group of test images")
        table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        decided = [name for name in SUBGROUP_COLUMNS if name in mine[0].metrics]
        columns = (
            "group",
            "patients",
            "images",
            "AUROC [95 %]",
            "to all others [95 %]",
            "balanced acc.",
            *(SUBGROUP_COLUMNS[n] for n in decided),
        )
        for name in columns:
            table.add_column(name, overflow="fold")
        for g in mine:
            rates = [format_number(g.metrics["balanced_accuracy"]), *(format_number(g.metrics[name]) for name in decided)]
            name = f"{g.axis}: {g.name}" if g.axis else g.name
            table.add_row(
                name, str(g.patients), str(g.images), render.format_interval(g.intervals["auroc"]), render.format_difference(g.gap), *rates
            )
        console.print(table)
        for line in build_subgroup_captions(row, mine):
            console.print(Text(f"  {line}"), style="yellow" if line.startswith(("LEAK", "warn")) else "dim")


def build_subgroup_captions(row: Row, mine: Sequence[Subgroup]) -> list[str]:
    """Gaps that survive Holm's correction, groups that are too small, and leaks."""
    gaps = [g for g in mine if g.gap is not None]
    said = ["thresholds are those of all validation patients; gaps are AUROC differences to all other test images"]
    for g in gaps:
        if g.adjusted < 0.05:
            assert g.gap is not None
            said.append(f"{g.axis}: {g.name} is served {g.gap.verdict} than all others (Holm p {g.adjusted:.3g} over {len(gaps)} gaps)")
    said += [f"warning: {g.axis}: {g.name}: {note}" for g in gaps for note in g.notes]
    return said + [f"LEAKAGE ALLOWED: {leak}" for leak in render.list_allowed_leaks(row)]


def format_number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def subgroups_to_csv(groups: Sequence[tuple[Section, Row, list[Subgroup]]]) -> str:
    """A line a group, every metric with six digits."""
    return render.lines_to_csv([_subgroup_line(section, row, g) for section, row, mine in groups for g in mine])


def _subgroup_line(section: Section, row: Row, g: Subgroup) -> dict[str, Any]:
    where = {"task": section.task, "protocol": section.protocol, "protocol_hash": section.protocol_hash, "encoder": row.encoder}
    size = {"by": g.axis, "group": g.name, "patients": g.patients, "images": g.images, "patients_in_smaller_class": g.fewest}
    line: dict[str, Any] = {**where, **size, **{name: f"{value:.6f}" for name, value in g.metrics.items()}}
    for name, value in g.intervals.items():
        line |= {f"{name}_low": f"{value.low:.6f}", f"{name}_high": f"{value.high:.6f}"}
    if g.gap is not None:
        line |= {"gap": f"{g.gap.value:.6f}", "gap_low": f"{g.gap.low:.6f}", "gap_high": f"{g.gap.high:.6f}"}
        line |= {"gap_p": f"{g.gap.p:.6g}", "gap_p_holm": f"{g.adjusted:.6g}"}
    return {**line, "leakage": "; ".join(render.list_allowed_leaks(row)), "notes": "; ".join(g.notes)}
