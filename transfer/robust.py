"""Curves of the AUROC over the strength of an acquisition shift, from records; chosen on clean validation images, frozen, then scored.

A curve is one encoder under one protocol and one shift. Its loss at a strength is the paired difference to the clean images of the same
test patients, so that it has an interval of its own.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from encoders.names import short
from transfer.record import Record
from transfer.stats import Difference, Interval
from transfer.table import Row, auroc_of, difference, task_name

COLUMNS = "task,protocol,encoder,fraction,shift,strength,parameter,unit,auroc,low,high,loss,loss_low,loss_high,leakage"


@dataclass
class Point:
    """One strength; 0: the images as they are. parameter: in the shift's own unit.  loss: AUROC here minus AUROC on the clean images."""

    strength: int
    parameter: float
    auroc: Interval
    loss: Difference | None = None


@dataclass
class Curve:
    """The points of one encoder, weakest shift first."""

    task: str
    protocol: str
    protocol_hash: str
    partition: str
    encoder: str
    role: str
    fraction: float
    shift: str
    unit: str
    points: list[Point] = field(default_factory=list)
    leakage: tuple[str, ...] = ()  # what --allow-leakage let pass


def curves(records: Sequence[Record]) -> list[Curve]:
    """Every curve that the records hold. One without its clean record has no loss."""
    apart: dict[tuple, dict[tuple[str, int], dict[int, list[Record]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for record in (r for r in records if r.meta.status == "ok"):
        i = record.identity
        share = (0, float(i.patients)) if i.patients is not None else (1, i.fraction)
        alike = i.task, i.labels, i.store, i.partition, i.protocol, i.protocol_hash, i.seed, share, i.encoder, i.encoder_sha256
        apart[alike][i.shift or "", i.shift_version or 0][i.strength].append(record)
    return [
        _curve(shifted[shift, version], shifted.get(("", 0), {}).get(0, []))
        for _, shifted in sorted(apart.items(), key=lambda item: item[0])
        for shift, version in sorted(shifted)
        if shift
    ]


def _curve(by_strength: dict[int, list[Record]], clean: list[Record]) -> Curve:
    from transfer.shifts import SHIFTS

    first = next(iter(by_strength.values()))[0]
    i = first.identity
    assert i.shift is not None
    about = i.protocol, i.protocol_hash, i.partition, i.encoder, first.meta.role, i.fraction, i.shift, SHIFTS[i.shift].unit
    curve = Curve(task_name(i), *about)
    every = [record for records in (*by_strength.values(), clean) for record in records]
    curve.leakage = tuple(dict.fromkeys(leak for record in every for leak in record.meta.leakage))
    if clean:
        curve.points.append(Point(0, float("nan"), auroc_of(_row(clean).records)))
    for strength in sorted(by_strength):
        here = _row(by_strength[strength])
        loss = difference(here, _row(clean)) if clean else None
        amount = here.records[0].identity.amount
        curve.points.append(Point(strength, float("nan") if amount is None else amount, auroc_of(here.records), loss))
    return curve


def _row(records: list[Record]) -> Row:
    records = sorted(records, key=lambda r: (r.identity.fold, r.identity.draw))
    return Row("", "", "", 1.0, {}, records)


def tables(curves: Sequence[Curve]) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, header, rows of text) for each task, protocol and shift: a row an encoder, a column a strength."""
    from transfer.show import gap

    apart: dict[tuple, list[Curve]] = defaultdict(list)
    for c in curves:
        apart[c.task, c.partition, c.protocol, c.protocol_hash, c.fraction, c.shift].append(c)
    made = []
    for (task, _, protocol, _, fraction, shift), same in apart.items():
        share = "" if fraction == 1 else f", {fraction:.3g} of the labels"
        amount = {p.strength: p.parameter for c in same for p in c.points}
        strengths = sorted(amount)
        header = ["encoder", *("clean" if s == 0 else f"{s} ({amount[s]:g})" for s in strengths), "loss at the strongest"]
        rows = []
        for c in same:
            at = {p.strength: f"{p.auroc.value:.3f}" for p in c.points}
            rows.append([short(c.encoder), *(at.get(s, "") for s in strengths), gap(c.points[-1].loss)])
        made.append((f"{task}, {protocol}{share}: AUROC under {shift} ({same[0].unit})", header, rows))
    return made


def printed(out: Any, curves: Sequence[Curve]) -> None:
    """The tables, on a terminal."""
    from rich.table import Table

    for title, header, rows in tables(curves):
        table = Table(*header, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        out.print(table)
    few = dict.fromkeys(f"warning: {c.task}, {c.protocol}: {p.loss.note}" for c in curves for p in c.points if p.loss and p.loss.note)
    for line in few:
        out.print(line, markup=False, style="yellow")
    for line in dict.fromkeys(f"LEAKAGE ALLOWED: {c.task}: {leak}" for c in curves for leak in c.leakage):
        out.print(line, markup=False, style="yellow")


def as_csv(curves: Sequence[Curve]) -> str:
    """A line a point, for plotting."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(COLUMNS.split(","))
    for c in curves:
        for p in c.points:
            loss = [p.loss.value, p.loss.low, p.loss.high] if p.loss else ["", "", ""]
            where = [c.task, c.protocol, c.encoder, c.fraction, c.shift, p.strength, p.parameter, c.unit]
            lines.writerow([*where, p.auroc.value, p.auroc.low, p.auroc.high, *loss, "; ".join(c.leakage)])
    return text.getvalue()
