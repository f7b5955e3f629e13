"""Decisions at an operating rule of one's own: the threshold from validation patients, its rates on test patients, and what they mean for
patients at a prevalence of one's own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np

from encoders.runtime.errors import InputError
from transfer import show
from transfer.metrics import Rule, predictive, sensitivity, specificity, thresholds
from transfer.record import Record
from transfer.stats import Interval
from transfer.table import RESAMPLES, Row, Section, intervals

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
    classes, tests = row.records[0].meta.classes, [r.part("test")[0] for r in row.records]
    cuts = np.mean([thresholds_of(r, asked) for r in row.records], axis=0).tolist()
    both = intervals(row.records, lambda r: partial(rates, threshold=thresholds_of(r, asked)), RESAMPLES)
    found = []
    for c, (name, cut, hit, spared) in enumerate(zip(classes, cuts, both[: len(classes)], both[len(classes) :], strict=True)):
        share = asked.prevalence if asked.prevalence is not None else float(np.mean([_share(y[:, c]) for y in tests]))
        found.append(Point(name, cut, hit, spared, *predictive(hit.value, spared.value, share), share))
    return found


def rates(y: np.ndarray, s: np.ndarray, threshold: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """(2C,) or (B, 2C): sensitivities of all labels, then specificities, so that both are of the same resamples."""
    return np.concatenate([of(y, s, threshold=threshold, weight=weight) for of in (sensitivity, specificity)], axis=-1)


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
    for leak in show.unique(leak for _, row, _ in found for leak in show.leaks(row)):
        console.print(f"  LEAKAGE ALLOWED: {leak}", style="yellow", markup=False)


def as_csv(found: Sequence[tuple[Section, Row, list[Point]]], asked: Asked) -> str:
    """A line a label, with six digits."""
    return show.csv_of([_line(section, row, point, asked) for section, row, mine in found for point in mine])


def _line(section: Section, row: Row, point: Point, asked: Asked) -> dict[str, Any]:
    where = {"task": section.task, "protocol": section.protocol, "protocol_hash": section.protocol_hash, "encoder": row.encoder}
    target = "" if asked.rule == "youden" else f"{asked.target:g}"
    line = {**where, "fraction": f"{row.fraction:g}", "rule": asked.rule, "target": target, "label": point.label}
    numbers = {"threshold": point.threshold}
    for name, rate in (("sensitivity", point.sensitivity), ("specificity", point.specificity)):
        numbers |= {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}
    numbers |= {"ppv": point.ppv, "npv": point.npv, "prevalence": point.prevalence}
    return {**line, **{name: f"{value:.6f}" for name, value in numbers.items()}, "leakage": "; ".join(show.leaks(row))}
