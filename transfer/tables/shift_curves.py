"""AUROC over the strength of an acquisition shift, from records. Selection uses unshifted validation images; only test images are shifted.

A curve is one encoder with one protocol under one shift. Its loss at a strength is the paired difference to the unshifted images of the
same test patients, so it has its own interval.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from encoders.runtime.escape import format_csv
from encoders.runtime.precision_names import FeaturePrecision
from encoders.zoo.names import short_name
from transfer.bench.shifts import SHIFTS
from transfer.records.record import Record
from transfer.records.redactor import Redactor
from transfer.stats import Difference, Interval
from transfer.tables.comparisons import compare_rows
from transfer.tables.format import format_difference
from transfer.tables.row_estimates import row_interval
from transfer.tables.rows import Row, task_name

if TYPE_CHECKING:
    from rich.console import Console
SHIFT_COLUMNS = "task,protocol,encoder,fraction,shift,strength,parameter,unit,auroc,low,high,loss,loss_low,loss_high,leakage,precision"


@dataclass
class ShiftPoint:
    """One strength; 0: unshifted images. parameter: in the shift's own unit.  loss: AUROC here minus AUROC on unshifted images."""

    strength: int
    parameter: float
    auroc: Interval
    loss: Difference | None = None


@dataclass
class ShiftCurve:
    """The points of one encoder, by increasing strength."""

    task: str
    protocol: str
    protocol_hash: str
    partition: str
    encoder: str
    role: str
    fraction: float
    shift: str
    unit: str
    points: list[ShiftPoint] = field(default_factory=list)
    precision: FeaturePrecision = "fp32"
    leakage: tuple[str, ...] = ()  # confirmed leaks that --allow-leakage allowed


def build_shift_curves(records: Sequence[Record]) -> list[ShiftCurve]:
    """All curves of the records. A curve without records on unshifted images has no loss."""
    Key = tuple[str, str, str, str, str, str, str, int, tuple[int, float], str, str]
    groups: dict[Key, dict[tuple[str, int], dict[int, list[Record]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for record in (r for r in records if r.meta.status == "ok"):
        i = record.identity
        share = (0, float(i.patients)) if i.patients is not None else (1, i.fraction)
        settings = i.protocol, i.protocol_hash, i.precision
        key = i.task, i.labels, i.store, i.partition, *settings, i.seed, share, i.encoder, i.encoder_sha256
        groups[key][i.shift or "", i.shift_version or 0][i.strength].append(record)
    return [
        _build_shift_curve(shifted[shift, version], shifted.get(("", 0), {}).get(0, []))
        for _, shifted in sorted(groups.items(), key=lambda item: item[0])
        for shift, version in sorted(shifted)
        if shift
    ]


def _build_shift_curve(by_strength: dict[int, list[Record]], clean: list[Record]) -> ShiftCurve:
    first = next(iter(by_strength.values()))[0]
    i = first.identity
    assert i.shift is not None
    fields = i.protocol, i.protocol_hash, i.partition, i.encoder, first.meta.role, i.fraction, i.shift, SHIFTS[i.shift].unit
    curve = ShiftCurve(task_name(i), *fields, precision=i.precision)
    every = [record for records in (*by_strength.values(), clean) for record in records]
    curve.leakage = tuple(Redactor(every).redact_all(leak for record in every for leak in record.meta.leakage))
    if clean:
        curve.points.append(ShiftPoint(0, float("nan"), row_interval(_bare_row(clean).records)))
    for strength in sorted(by_strength):
        here = _bare_row(by_strength[strength])
        loss = compare_rows(here, _bare_row(clean)) if clean else None
        amount = here.records[0].identity.amount
        curve.points.append(ShiftPoint(strength, float("nan") if amount is None else amount, row_interval(here.records), loss))
    return curve


def _bare_row(records: list[Record]) -> Row:
    """A row that holds only its records, for `compare_rows`."""
    records = sorted(records, key=lambda r: (r.identity.fold, r.identity.draw))
    return Row("", "", "", 1.0, {}, records)


def build_shift_tables(curves: Sequence[ShiftCurve]) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, header, rows of text) for each task, protocol and shift: one row per encoder, one column per strength."""
    groups: dict[tuple[str, str, str, str, str, float, str], list[ShiftCurve]] = defaultdict(list)
    for c in curves:
        groups[c.task, c.partition, c.protocol, c.protocol_hash, c.precision, c.fraction, c.shift].append(c)
    tables = []
    for (task, _, protocol, _, precision, fraction, shift), same in groups.items():
        share = "" if fraction == 1 else f", {fraction:.3g} of the labels"
        share += "" if precision == "fp32" else f", features in {precision}"
        amount = {p.strength: p.parameter for c in same for p in c.points}
        strengths = sorted(amount)
        header = ["encoder", *("unshifted" if s == 0 else f"{s} ({amount[s]:g})" for s in strengths), "change at highest strength"]
        rows = []
        for c in same:
            at = {p.strength: f"{p.auroc.value:.3f}" for p in c.points}
            rows.append([short_name(c.encoder), *(at.get(s, "") for s in strengths), format_difference(c.points[-1].loss)])
        tables.append((f"{task}, {protocol}{share}: AUROC under {shift} ({same[0].unit})", header, rows))
    return tables


def print_shift_tables(console: "Console", curves: Sequence[ShiftCurve]) -> None:
    """Prints the tables, and the warnings below them."""
    from rich.table import Table

    for title, header, rows in build_shift_tables(curves):
        table = Table(*header, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    warnings = dict.fromkeys(f"warning: {c.task}, {c.protocol}: {p.loss.note}" for c in curves for p in c.points if p.loss and p.loss.note)
    for line in warnings:
        console.print(line, markup=False, style="yellow")
    for line in dict.fromkeys(f"LEAKAGE ALLOWED: {c.task}: {leak}" for c in curves for leak in c.leakage):
        console.print(line, markup=False, style="yellow")


def shift_curves_to_csv(curves: Sequence[ShiftCurve]) -> str:
    """One line per point, for plotting."""
    lines: list[list[object]] = [[*SHIFT_COLUMNS.split(",")]]
    for c in curves:
        for p in c.points:
            loss = [p.loss.value, p.loss.low, p.loss.high] if p.loss else ["", "", ""]
            where = [c.task, c.protocol, c.encoder, c.fraction, c.shift, p.strength, p.parameter, c.unit]
            lines.append([*where, p.auroc.value, p.auroc.low, p.auroc.high, *loss, "; ".join(c.leakage), c.precision])
    return format_csv(lines)
