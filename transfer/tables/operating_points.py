"""Decisions at an operating rule: thresholds are chosen on validation patients, sensitivity and specificity are measured on test patients,
and predictive values are computed for a given prevalence. Each label also has its calibration slope and intercepts.

Shapes: M test images, C labels, B resamples.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.errors import InputError
from encoders.runtime.escape import lines_to_csv
from transfer.metrics import ThresholdRule, choose_thresholds, predictive_values
from transfer.records.cached_results import cached_result
from transfer.records.record import Record
from transfer.stats import Interval
from transfer.tables import render
from transfer.tables.calibration_rows import LabelCalibration, row_calibration
from transfer.tables.format import format_interval
from transfer.tables.row_bootstrap import TABLE_RESAMPLES, CountedImages, bootstrap_rates
from transfer.tables.rows import Row, Section, rows_by_records
from transfer.tables.terminal_table import build_table

if TYPE_CHECKING:
    from rich.console import Console

RULE_TEXTS: dict[ThresholdRule, str] = {
    "youden": "the largest Youden index",
    "sensitivity": "a sensitivity of at least {:g}",
    "specificity": "a specificity of at least {:g}",
}
DECISION_HEADER = ("label", "threshold", "sensitivity [95 %]", "specificity [95 %]", "PPV", "NPV", "prevalence")
CALIBRATION_HEADER = ("calibration slope [95 %]", "calibration in the large [95 %]")
OPERATING_HEADER = (*DECISION_HEADER, *CALIBRATION_HEADER)
CALIBRATION_NOTE = (
    "Calibration: perfect are a slope of 1 and 0 in the large. Slope below 1: probabilities are too extreme. "
    "In the large above 0: they are too low on average"
)


@dataclass(frozen=True)
class OperatingRule:
    """How thresholds are chosen, and the prevalence for predictive values (None: that of the test part)."""

    kind: ThresholdRule = "youden"
    target: float = 0.9
    prevalence: float | None = None

    def describe(self) -> str:
        """The rule as a sentence without a full stop."""
        prevalence = "the prevalence of the test part" if self.prevalence is None else f"a prevalence of {self.prevalence:g}"
        goal = RULE_TEXTS[self.kind].format(self.target)
        return f"Thresholds are chosen on validation patients for {goal}; PPV and NPV are for {prevalence}"


def parse_operating_rule(text: str, prevalence: float | None) -> OperatingRule:
    """`youden`, `sensitivity=0.95` or `specificity=0.9`. Raises InputError."""
    name, _, target = text.partition("=")
    kind = next((k for k in RULE_TEXTS if k == name), None)
    try:
        value = float(target) if target else 0.9
    except ValueError:
        value = math.nan
    if kind is None or (kind == "youden" and target) or not 0 < value < 1:
        raise InputError(
            f"--operating is {text!r}; expected youden, or sensitivity=T or specificity=T with T between 0 and 1, e.g. sensitivity=0.95"
        )
    if prevalence is not None and not 0 < prevalence < 1:
        raise InputError(f"--prevalence is {prevalence:g}; expected a share of patients between 0 and 1, e.g. 0.02")
    return OperatingRule(kind, value, prevalence)


@dataclass(frozen=True)
class LabelDecision:
    """The decisions on one label of one row: means over folds and draws, intervals over test patients."""

    label: str
    threshold: float
    sensitivity: Interval
    specificity: Interval
    ppv: float
    npv: float
    prevalence: float
    calibration: LabelCalibration | None  # None: the scores are not probabilities

    def cells(self) -> tuple[str, ...]:
        """The text of the columns `OPERATING_HEADER`."""
        return *self.decision_cells(), *self.calibration_cells()

    def calibration_cells(self) -> tuple[str, ...]:
        """The text of the columns `CALIBRATION_HEADER`."""
        fit = self.calibration
        return tuple(map(format_interval, (fit.slope, fit.in_the_large))) if fit else ("no probabilities", "no probabilities")

    def decision_cells(self) -> tuple[str, ...]:
        """The text of the columns `DECISION_HEADER`."""
        rates = ("not defined" if math.isnan(v) else f"{v:.3f}" for v in (self.ppv, self.npv, self.prevalence))
        return (
            self.label,
            f"{self.threshold:.3g}",
            format_interval(self.sensitivity),
            format_interval(self.specificity),
            *rates,
        )


def choose_record_thresholds(record: Record, rule: OperatingRule) -> FloatArray:
    """(C,) the thresholds of the rule on the record's validation part."""
    settings = rule.kind, rule.target
    return cached_result("thresholds", [record], settings, np.ndarray, lambda: choose_thresholds(*record.part("val")[:2], *settings))


def row_decisions(row: Row, rule: OperatingRule) -> list[LabelDecision]:
    """One decision per label; none for a multi-class task, which decides by the largest score."""
    if row.records[0].meta.kind == "multiclass":
        return []
    settings = rule.kind, rule.target, rule.prevalence
    return cached_result("decisions", row.records, settings, list[LabelDecision], lambda: _decide(row, rule))


def _decide(row: Row, rule: OperatingRule) -> list[LabelDecision]:
    classes, tests = row.records[0].meta.classes, [r.part("test")[0] for r in row.records]
    thresholds = np.mean([choose_record_thresholds(r, rule) for r in row.records], axis=0).tolist()
    both = bootstrap_rates(row.records, lambda r: count_right(*r.part("test")[:2], choose_record_thresholds(r, rule)), TABLE_RESAMPLES)
    sensitivities, specificities = both[: len(classes)], both[len(classes) :]
    calibrations = row_calibration(row.records)
    decisions = []
    for c, (name, threshold, sens, spec) in enumerate(zip(classes, thresholds, sensitivities, specificities, strict=True)):
        prevalence = rule.prevalence if rule.prevalence is not None else float(np.mean([_positive_share(y[:, c]) for y in tests]))
        values = predictive_values(sens.value, spec.value, prevalence)
        decisions.append(LabelDecision(name, threshold, sens, spec, *values, prevalence, calibrations[c] if calibrations else None))
    return decisions


def count_right(y: Array, s: Array, threshold: Array) -> CountedImages:
    """(M, 2C) the positives of each label, then its negatives; and (M, 2C) whether the decision on the image is right."""
    called = s >= threshold
    return np.concatenate([y > 0.5, y <= 0.5], axis=1), np.concatenate([called, ~called], axis=1)  # NaN is neither


def _positive_share(y: Array) -> float:
    known = y[~np.isnan(y)]
    return float((known > 0.5).mean()) if len(known) else math.nan


def gather_decisions(sections: Sequence[Section], rule: OperatingRule) -> list[tuple[Section, Row, list[LabelDecision]]]:
    """The decisions of every row. Raises InputError when no task is binary or multi-label."""
    decided = [(s, row, decisions) for s in sections for row in rows_by_records(s) if (decisions := row_decisions(row, rule))]
    if not decided:
        raise InputError("--operating needs a binary or multi-label task; a multi-class task decides by the largest score")
    return decided


def print_decisions(console: "Console", decided: Sequence[tuple[Section, Row, list[LabelDecision]]], rule: OperatingRule) -> None:
    """Prints a table of all decisions and one of the calibration, with the rule and the leaks below them."""

    names = render.shorten_names([s for s, _, _ in decided])
    several = len({s.task for s, _, _ in decided}) > 1
    shares = {row.fraction for _, row, _ in decided} != {1.0}
    place = ("encoder", "protocol", *(["task"] if several else []), *(["fraction"] if shares else []))
    panels: tuple[tuple[str, tuple[str, ...], Callable[[LabelDecision], tuple[str, ...]], str], ...] = (
        ("Decisions", DECISION_HEADER, LabelDecision.decision_cells, rule.describe()),
        ("Calibration", ("label", *CALIBRATION_HEADER), lambda d: (d.label, *d.calibration_cells()), CALIBRATION_NOTE),
    )
    for title, header, cells, note in panels:
        table = build_table(title, (*place, *header))
        for s, row, decisions in decided:
            where = [names[row.encoder], s.protocol, *([s.task] if several else []), *([f"{row.fraction:.3g}"] if shares else [])]
            for decision in decisions:
                table.add_row(*where, *cells(decision))
        console.print(table)
        console.print(f"  {note}", style="dim", markup=False)
    for leak in render.unique(leak for _, row, _ in decided for leak in render.list_allowed_leaks(row)):
        console.print(f"  LEAKAGE ALLOWED: {leak}", style="yellow", markup=False)


def decisions_to_csv(decided: Sequence[tuple[Section, Row, list[LabelDecision]]], rule: OperatingRule) -> str:
    """One line per label, numbers with six decimals."""
    return lines_to_csv([_decision_line(section, row, d, rule) for section, row, decisions in decided for d in decisions])


def _decision_line(section: Section, row: Row, decision: LabelDecision, rule: OperatingRule) -> dict[str, object]:
    where = {"task": section.task, "protocol": section.protocol, "protocol_hash": section.protocol_hash, "encoder": row.encoder}
    target = "" if rule.kind == "youden" else f"{rule.target:g}"
    line = {**where, "fraction": f"{row.fraction:g}", "rule": rule.kind, "target": target, "label": decision.label}
    line["scored_by"] = row.records[0].meta.scored_by or "image"
    numbers = {"threshold": decision.threshold}
    for name, rate in (("sensitivity", decision.sensitivity), ("specificity", decision.specificity)):
        numbers |= {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}
    numbers |= {"ppv": decision.ppv, "npv": decision.npv, "prevalence": decision.prevalence}
    if decision.calibration is not None:
        fit = decision.calibration
        for name, interval in (("slope", fit.slope), ("intercept", fit.intercept), ("in_the_large", fit.in_the_large)):
            ends = zip(("", "_low", "_high"), interval.ends, strict=True)
            numbers |= {f"calibration_{name}{end}": value for end, value in ends}
        line |= {"probabilities_at_bounds": str(fit.at_bounds)}
    return {**line, **{name: f"{value:.6f}" for name, value in numbers.items()}, "leakage": "; ".join(render.list_allowed_leaks(row))}
