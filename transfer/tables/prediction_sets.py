"""Prediction sets of every row: calibrated on validation patients, and how often they hold the true class of test images.

Shapes: M test images, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from encoders.runtime.arrays import Array, BoolArray, FloatArray, IntArray
from encoders.runtime.errors import InputError
from encoders.runtime.escape import lines_to_csv
from encoders.runtime.random import Purpose, generator
from transfer.metrics.conformal import calibrate_sets, predict_sets, score_classes, spread_classes
from transfer.metrics.set_rule import SetRule
from transfer.records.cached_results import cached_result
from transfer.records.record import Record
from transfer.stats import Interval
from transfer.tables import render
from transfer.tables.format import format_interval
from transfer.tables.row_bootstrap import TABLE_RESAMPLES, CountedImages, bootstrap_rates
from transfer.tables.rows import Row, Section, rows_by_records
from transfer.tables.terminal_table import build_table

if TYPE_CHECKING:
    from rich.console import Console

SET_HEADER = ("coverage [95 %]", "least of a class", "classes a set", "one class", "right if one class [95 %]", "empty")


@dataclass(frozen=True)
class RowSets:
    """The sets of one row: means over its records, intervals over test patients.

    class_coverage: name of a class -> share of its test images whose set holds it.  size: mean number of classes.  single_right: share of
    the sets with one class that hold the true one."""

    coverage: Interval
    class_coverage: dict[str, float]
    size: float
    single: Interval
    single_right: Interval
    empty: Interval

    def cells(self) -> tuple[str, ...]:
        """The text of the columns `SET_HEADER`."""
        name, least = min(self.class_coverage.items(), key=lambda pair: (np.isnan(pair[1]), pair[1]))
        single, empty = f"{100 * self.single.value:.0f} %", f"{100 * self.empty.value:.0f} %"
        return (
            format_interval(self.coverage),
            f"{least:.3f} ({name})",
            f"{self.size:.2f}",
            single,
            format_interval(self.single_right),
            empty,
        )


def gather_sets(sections: Sequence[Section], rule: SetRule) -> list[tuple[Section, Row, RowSets]]:
    """The sets of every row with probabilities. Raises InputError if no task has one class an image."""
    found = [(s, row, sets) for s in sections for row in rows_by_records(s) if (sets := row_sets(row, rule)) is not None]
    if not found:
        raise InputError("--sets needs a binary or multi-class task whose scores are probabilities")
    return found


def row_sets(row: Row, rule: SetRule) -> RowSets | None:
    """The sets of a row; None for several labels an image, and for scores that are no probabilities."""
    if row.records[0].meta.kind == "multilabel" or not all(has_probabilities(record) for record in row.records):
        return None
    settings = rule.level, rule.score, rule.by_class
    return cached_result("sets", row.records, settings, RowSets, lambda: _measure_sets(row, rule))


def has_probabilities(record: Record) -> bool:
    """Whether the scores of a record are between 0 and 1, and of several classes sum to 1."""

    def check() -> bool:
        scores = np.concatenate([record.part("val")[1], record.part("test")[1]]).astype(np.float64)
        inside = bool(((scores >= 0) & (scores <= 1)).all())
        return inside and (scores.shape[1] == 1 or bool(np.allclose(scores.sum(1), 1, atol=1e-3)))

    return cached_result("has probabilities", [record], (), bool, check)


def list_class_names(record: Record) -> list[str]:
    """The names of the classes that a set chooses from: of a binary task also the negative one."""
    names = record.meta.classes
    return [f"not {names[0]}", names[0]] if len(names) == 1 else list(names)


def record_sets(record: Record, rule: SetRule) -> tuple[BoolArray, IntArray, BoolArray]:
    """(M, C) the sets of the test images, (M,) their class numbers, and (M,) whether the label is known.

    Its validation part calibrates them. What is random of a set depends on the fold alone, so that encoders are compared fairly."""

    def score(part: Literal["val", "test"], number: int) -> tuple[FloatArray, IntArray, BoolArray, Array]:
        y, scores, patient = record.part(part)
        truth, p, known = spread_classes(y, scores)
        uniform = generator(record.identity.fold, Purpose.SETS, number).random(len(p))
        return score_classes(p, rule.score, uniform), truth, known, patient

    scores, truth, known, patient = score("val", 0)
    limits = calibrate_sets(scores[known], truth[known], patient[known], rule.level, rule.by_class)
    scores, truth, known, _ = score("test", 1)
    return predict_sets(scores, limits), truth, known


def _measure_sets(row: Row, rule: SetRule) -> RowSets:
    names = list_class_names(row.records[0])

    def count(record: Record) -> CountedImages:
        sets, truth, known = record_sets(record, rule)
        covered, size = sets[np.arange(len(sets)), truth], sets.sum(axis=1)
        classes = [known & (truth == c) for c in range(len(names))]
        counted = [known, known, known, known & (size == 1), *classes, *[known] * len(names)]
        right = [covered, size == 1, size == 0, covered, *[covered] * len(names), *sets.T]
        return np.stack(counted, axis=1), np.stack(right, axis=1)

    coverage, single, empty, single_right, *rest = bootstrap_rates(row.records, count, TABLE_RESAMPLES)
    own, shares = rest[: len(names)], rest[len(names) :]
    by_class = dict(zip(names, (rate.value for rate in own), strict=True))
    return RowSets(coverage, by_class, sum(rate.value for rate in shares), single, single_right, empty)


def print_sets(console: "Console", found: Sequence[tuple[Section, Row, RowSets]], rule: SetRule) -> None:
    """Prints a table of all sets, with the rule and the leaks below it."""

    names = render.shorten_names([s for s, _, _ in found])
    table = build_table("Prediction sets", ("encoder", "protocol", "task", "fraction", *SET_HEADER))
    for s, row, sets in found:
        table.add_row(names[row.encoder], s.protocol, s.task, f"{row.fraction:.3g}", *sets.cells())
    console.print(table)
    console.print(f"  {rule.describe()}", style="dim", markup=False)
    for leak in render.unique(leak for _, row, _ in found for leak in render.list_allowed_leaks(row)):
        console.print(f"  LEAKAGE ALLOWED: {leak}", style="yellow", markup=False)


def sets_to_csv(found: Sequence[tuple[Section, Row, RowSets]], rule: SetRule) -> str:
    """One line per row and class, numbers with six decimals."""
    lines: list[Mapping[str, object]] = []
    for s, row, sets in found:
        where = {
            "task": s.task,
            "protocol": s.protocol,
            "protocol_hash": s.protocol_hash,
            "encoder": row.encoder,
            "fraction": f"{row.fraction:g}",
        }
        where |= {"score": rule.score, "level": f"{rule.level:g}", "promised_for": "each class" if rule.by_class else "all images"}
        numbers = {"size": sets.size}
        for name, rate in (
            ("coverage", sets.coverage),
            ("single", sets.single),
            ("single_right", sets.single_right),
            ("empty", sets.empty),
        ):
            numbers |= {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}
        for name, coverage in sets.class_coverage.items():
            lines.append(where | {"class": name, "class_coverage": f"{coverage:.6f}"} | {key: f"{v:.6f}" for key, v in numbers.items()})
    return lines_to_csv(lines)
