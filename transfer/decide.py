"""Decisions at an operating rule of one's own: the threshold from validation patients, its rates on test patients, and what they mean for
patients at a prevalence of one's own."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np

from encoders.runtime.errors import InputError
from transfer import show
from transfer.metrics import Rule, predictive, sensitivity, specificity, thresholds
from transfer.record import Record
from transfer.stats import Interval
from transfer.table import RESAMPLES, Row, Section, interval

RULES = {"youden": "Youden's index is largest", "sensitivity": "sensitivity reaches {:g}", "specificity": "specificity reaches {:g}"}
HEADER = ("label", "threshold", "sensitivity [95 %]", "specificity [95 %]", "PPV", "NPV", "prevalence")


@dataclass(frozen=True)
class Asked:
    """How thresholds are chosen, and the prevalence that predictive values are for (None: that of the test part)."""

    rule: Rule = "youden"
    target: float = 0.9
    prevalence: float | None = None

    def told(self) -> str:
        """In words, without a full stop at the end."""
        at = "that of the test part" if self.prevalence is None else f"{self.prevalence:g}, as stated"
        where = f"where {RULES[self.rule].format(self.target)} on validation patients"
        return f"Decided at the threshold {where}; predictive values at a prevalence of {at}"


def parsed(text: str, prevalence: float | None) -> Asked:
    """`youden`, `sensitivity=0.95` or `specificity=0.9`. Raises InputError."""
    rule, _, target = text.partition("=")
    try:
        aim = float(target) if target else 0.9
    except ValueError:
        aim = math.nan
    if rule not in RULES or (rule == "youden" and target) or not 0 < aim < 1:
        raise InputError(
            f"--operating is {text!r}; expected youden, or sensitivity=T or specificity=T with T between 0 and 1, e.g. sensitivity=0.95"
        )
    if prevalence is not None and not 0 < prevalence < 1:
        raise InputError(f"--prevalence is {prevalence:g}; expected a share of patients between 0 and 1, e.g. 0.02")
    return Asked(cast(Rule, rule), aim, prevalence)


@dataclass(frozen=True)
class Point:
    """One label of one row: means over folds and draws, intervals over test patients."""

    label: str
    threshold: float
    sensitivity: Interval
    specificity: Interval
    ppv: float
    npv: float
    prevalence: float

    def told(self) -> tuple[str, ...]:
        """Cells under HEADER."""
        rates = (self.ppv, self.npv, self.prevalence)
        shown = ("not defined" if math.isnan(v) else f"{v:.3f}" for v in rates)
        return (self.label, f"{self.threshold:.3g}", show.told(self.sensitivity), show.told(self.specificity), *shown)


def thresholds_of(record: Record, asked: Asked) -> np.ndarray:
    """(C,) from the record's validation part."""
    return thresholds(*record.part("val")[:2], asked.rule, asked.target)


def points(row: Row, asked: Asked) -> list[Point]:
    """One a label; none for a multi-class task, which decides by its largest score."""
    if row.records[0].meta.kind == "multiclass":
        return []
    cuts = np.array([thresholds_of(r, asked) for r in row.records])  # (records, C)
    return [_point(row, c, name, cuts[:, c], asked) for c, name in enumerate(row.records[0].meta.classes)]


def _point(row: Row, c: int, name: str, cuts: np.ndarray, asked: Asked) -> Point:
    cut = {id(record): value for record, value in zip(row.records, cuts.tolist(), strict=True)}

    def at(metric: Callable[..., Any]) -> Interval:
        return interval(row.records, lambda r: partial(_of_label, metric, c, cut[id(r)]), RESAMPLES)

    hit, spared = at(sensitivity), at(specificity)
    labels = [r.part("test")[0][:, c] for r in row.records]
    share = asked.prevalence if asked.prevalence is not None else float(np.mean([_share(y) for y in labels]))
    return Point(name, float(np.mean(cuts)), hit, spared, *predictive(hit.value, spared.value, share), share)


def _of_label(metric: Callable[..., Any], c: int, cut: float, y: np.ndarray, s: np.ndarray, weight: np.ndarray | None = None) -> Any:
    return metric(y[:, c : c + 1], s[:, c : c + 1], threshold=cut, weight=weight)


def _share(y: np.ndarray) -> float:
    known = y[~np.isnan(y)]
    return float((known > 0.5).mean()) if len(known) else math.nan


def decided(parts: Sequence[Section], asked: Asked) -> list[tuple[Section, Row, list[Point]]]:
    """The points of every row. Raises InputError when no task is binary or multi-label."""
    found = [(s, row, mine) for s in parts for row in s.rows if (mine := points(row, asked))]
    if not found:
        raise InputError("--operating needs a binary or multi-label task; a multi-class task decides by its largest score")
    return found


def printed(console: Any, found: Sequence[tuple[Section, Row, list[Point]]], asked: Asked) -> None:
    """One table for all, and how it was decided."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="Decisions", title_justify="left", title_style="bold", pad_edge=False, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    names = show.names([s for s, _, _ in found])
    several = len({s.task for s, _, _ in found}) > 1
    shares = {row.fraction for _, row, _ in found} != {1.0}
    for name in ("encoder", "protocol", *(["task"] if several else []), *(["fraction"] if shares else []), *HEADER):
        table.add_column(name, overflow="fold")
    for s, row, mine in found:
        where = [names[row.encoder], s.protocol, *([s.task] if several else []), *([f"{row.fraction:.3g}"] if shares else [])]
        for point in mine:
            table.add_row(*where, *point.told())
    console.print(table)
    console.print(f"  {asked.told()}", style="dim", markup=False)


def as_csv(found: Sequence[tuple[Section, Row, list[Point]]], asked: Asked) -> str:
    """A line a label, with six digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    rates = [f"{name}{end}" for name in ("sensitivity", "specificity") for end in ("", "_low", "_high")]
    head = [
        "task",
        "protocol",
        "protocol_hash",
        "encoder",
        "fraction",
        "rule",
        "target",
        "label",
        "threshold",
        *rates,
        "ppv",
        "npv",
        "prevalence",
    ]
    writer.writerow(head)
    target = "" if asked.rule == "youden" else f"{asked.target:g}"
    for s, row, mine in found:
        where = [s.task, s.protocol, s.protocol_hash, row.encoder, f"{row.fraction:g}", asked.rule, target]
        for p in mine:
            ends = [v for i in (p.sensitivity, p.specificity) for v in (i.value, i.low, i.high)]
            writer.writerow([*where, p.label, *(f"{v:.6f}" for v in (p.threshold, *ends, p.ppv, p.npv, p.prevalence))])
    return out.getvalue()
