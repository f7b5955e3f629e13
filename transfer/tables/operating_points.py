"""Decisions at an operating rule of one's own: the threshold from validation patients, its rates on test patients, and what they mean for
patients at a prevalence of one's own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np

from encoders.runtime.errors import InputError
from transfer.metrics import ThresholdRule, choose_thresholds, predictive_values, sensitivity, specificity
from transfer.records.record import Record
from transfer.stats import Interval
from transfer.tables import render
from transfer.tables.rows import TABLE_RESAMPLES, Row, Section, bootstrap_intervals

RULE_TEXTS = {"youden": "Youden's index is largest", "sensitivity": "sensitivity reaches {:g}", "specificity": "specificity reaches {:g}"}
OPERATING_HEADER = ("label", "threshold", "sensitivity [95 %]", "specificity [95 %]", "PPV", "NPV", "prevalence")


@dataclass(frozen=True)
class OperatingRule:
    """How thresholds are chosen, and the prevalence that predictive values are for (None: that of the test part)."""

    rule: ThresholdRule = "youden"
    target: float = 0.9
    prevalence: float | None = None

    def told(self) -> str:
        """In words, without a full stop at the end."""
        at = "that of the test part" if self.prevalence is None else f"{self.prevalence:g}, as stated"
        where = f"where {RULE_TEXTS[self.rule].format(self.target)} on validation patients"
        return f"Decided at the threshold {where}; predictive values at a prevalence of {at}"


def parse_operating_rule(text: str, prevalence: float | None) -> OperatingRule:
    """`youden`, `sensitivity=0.95` or `specificity=0.9`. Raises InputError."""
    rule, _, target = text.partition("=")
    try:
        aim = float(target) if target else 0.9
    except ValueError:
        aim = math.nan
    if rule not in RULE_TEXTS or (rule == "youden" and target) or not 0 < aim < 1:
        raise InputError(
            f"--operating is {text!r}; expected youden, or sensitivity=T or specificity=T with T between 0 and 1, e.g. sensitivity=0.95"
        )
    if prevalence is not None and not 0 < prevalence < 1:
        raise InputError(f"--prevalence is {prevalence:g}; expected a share of patients between 0 and 1, e.g. 0.02")
    return OperatingRule(cast(ThresholdRule, rule), aim, prevalence)


@dataclass(frozen=True)
class LabelDecision:
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
        return (
            self.label,
            f"{self.threshold:.3g}",
            render.format_interval(self.sensitivity),
            render.format_interval(self.specificity),
            *shown,
        )


def choose_record_thresholds(record: Record, asked: OperatingRule) -> np.ndarray:
    """(C,) from the record's validation part."""
    return choose_thresholds(*record.part("val")[:2], asked.rule, asked.target)


def row_decisions(row: Row, asked: OperatingRule) -> list[LabelDecision]:
    """One a label; none for a multi-class task, which decides by its largest score."""
    if row.records[0].meta.kind == "multiclass":
        return []
    classes, tests = row.records[0].meta.classes, [r.part("test")[0] for r in row.records]
    cuts = np.mean([choose_record_thresholds(r, asked) for r in row.records], axis=0).tolist()
    both = bootstrap_intervals(
        row.records, lambda r: partial(sensitivity_and_specificity, threshold=choose_record_thresholds(r, asked)), TABLE_RESAMPLES
    )
    found = []
    for c, (name, cut, hit, spared) in enumerate(zip(classes, cuts, both[: len(classes)], both[len(classes) :], strict=True)):
        share = asked.prevalence if asked.prevalence is not None else float(np.mean([_positive_share(y[:, c]) for y in tests]))
        found.append(LabelDecision(name, cut, hit, spared, *predictive_values(hit.value, spared.value, share), share))
    return found


def sensitivity_and_specificity(y: np.ndarray, s: np.ndarray, threshold: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """(2C,) or (B, 2C): sensitivities of all labels, then specificities, so that both are of the same resamples."""
    return np.concatenate([of(y, s, threshold=threshold, weight=weight) for of in (sensitivity, specificity)], axis=-1)


def _positive_share(y: np.ndarray) -> float:
    known = y[~np.isnan(y)]
    return float((known > 0.5).mean()) if len(known) else math.nan


def gather_decisions(parts: Sequence[Section], asked: OperatingRule) -> list[tuple[Section, Row, list[LabelDecision]]]:
    """The points of every row. Raises InputError when no task is binary or multi-label."""
    found = [(s, row, mine) for s in parts for row in s.rows if (mine := row_decisions(row, asked))]
    if not found:
        raise InputError("--operating needs a binary or multi-label task; a multi-class task decides by its largest score")
    return found


def print_decisions(console: Any, found: Sequence[tuple[Section, Row, list[LabelDecision]]], asked: OperatingRule) -> None:
    """One table for all, and how it was decided."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="Decisions", title_justify="left", title_style="bold", pad_edge=False, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    names = render.shorten_names([s for s, _, _ in found])
    several = len({s.task for s, _, _ in found}) > 1
    shares = {row.fraction for _, row, _ in found} != {1.0}
    for name in ("encoder", "protocol", *(["task"] if several else []), *(["fraction"] if shares else []), *OPERATING_HEADER):
        table.add_column(name, overflow="fold")
    for s, row, mine in found:
        where = [names[row.encoder], s.protocol, *([s.task] if several else []), *([f"{row.fraction:.3g}"] if shares else [])]
        for point in mine:
            table.add_row(*where, *point.told())
    console.print(table)
    console.print(f"  {asked.told()}", style="dim", markup=False)
    for leak in render.unique(leak for _, row, _ in found for leak in render.list_allowed_leaks(row)):
        console.print(f"  LEAKAGE ALLOWED: {leak}", style="yellow", markup=False)


def decisions_to_csv(found: Sequence[tuple[Section, Row, list[LabelDecision]]], asked: OperatingRule) -> str:
    """A line a label, with six digits."""
    return render.lines_to_csv([_decision_line(section, row, point, asked) for section, row, mine in found for point in mine])


def _decision_line(section: Section, row: Row, point: LabelDecision, asked: OperatingRule) -> dict[str, Any]:
    where = {"task": section.task, "protocol": section.protocol, "protocol_hash": section.protocol_hash, "encoder": row.encoder}
    target = "" if asked.rule == "youden" else f"{asked.target:g}"
    line = {**where, "fraction": f"{row.fraction:g}", "rule": asked.rule, "target": target, "label": point.label}
    numbers = {"threshold": point.threshold}
    for name, rate in (("sensitivity", point.sensitivity), ("specificity", point.specificity)):
        numbers |= {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}
    numbers |= {"ppv": point.ppv, "npv": point.npv, "prevalence": point.prevalence}
    return {**line, **{name: f"{value:.6f}" for name, value in numbers.items()}, "leakage": "; ".join(render.list_allowed_leaks(row))}
