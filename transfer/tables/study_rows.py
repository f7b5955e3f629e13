"""The tables of a study: which strategy when, and what each costs. All verdicts of a study are corrected together.

Which strategy is chosen is decided by validation patients, as a user would; its AUROC is that on the test part. The strategy with the best
test AUROC is stated beside it, but it is the best of several, so its own value is too high.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from transfer.records.record import Record
from transfer.stats import Difference, correct_family
from transfer.stats.verdict import NOT_TESTED, Verdict
from transfer.strategies.names import FULL, split_protocol, strategy_order
from transfer.tables.rows import Section
from transfer.tables.strategy_rows import StrategyLine, build_strategy_tables

SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class StrategyChoice:
    """The strategies of one encoder at one number of labels.

    scores: mean validation score of each line, in their order.  chosen: index of the line with the best one.  best: of the best AUROC."""

    lines: Sequence[StrategyLine]
    scores: Sequence[float]
    chosen: int
    best: int

    def describe(self, verdict: Verdict) -> str:
        """The strategies with this verdict against the first one, after correction: `none`, or why there are no verdicts."""
        verdicts = {line.strategy: line.difference.reported_verdict for line in self.lines[1:] if line.difference is not None}
        named = [strategy for strategy, own in verdicts.items() if own == verdict]
        withheld = set(verdicts.values()) <= set(NOT_TESTED)
        return ", ".join(sorted(set(verdicts.values()))) if verdicts and withheld else ", ".join(named) or "none"


@dataclass(frozen=True)
class StrategyCost:
    """What a strategy costs, over all cells of the study.

    hours: of all its cells, with scoring.  fit_seconds: (least, median, most) of one training."""

    strategy: str
    cells: int
    trained_parameters: tuple[int, int]  # least and most over networks
    memory_bytes: int  # the most
    images_seen: tuple[int, int]
    fit_seconds: tuple[float, float, float]
    hours: float
    device: str


def judge_study(sections: Sequence[Section]) -> list[list[StrategyLine]]:
    """Corrects all comparisons of a study together (Holm): of encoders with each other, in the rows of `sections`, and of strategies.

    Returns the tables of strategies. To be called last: adding rows to sections corrects each table alone."""
    tables = build_strategy_tables(sections)
    rows = [row for section in sections for row in section.rows]
    lines = [line for table in tables for line in table]
    family = [c.difference for row in rows for c in row.comparisons] + [d for line in lines if (d := line.difference) is not None]
    corrected = iter(correct_family(family))
    for row in rows:
        row.comparisons = [replace(c, difference=next(corrected)) for c in row.comparisons]
    return [[_correct_line(line, corrected) for line in table] for table in tables]


def _correct_line(line: StrategyLine, corrected: Iterator[Difference]) -> StrategyLine:
    return line if line.difference is None else replace(line, difference=next(corrected))


def choose_strategies(tables: Sequence[Sequence[StrategyLine]]) -> list[StrategyChoice]:
    """The choice of every table, by task, encoder and number of labels."""
    ordered = sorted(tables, key=lambda lines: (lines[0].section.task, lines[0].row.labels_order))
    return [_choose(lines) for lines in ordered]


def _choose(lines: Sequence[StrategyLine]) -> StrategyChoice:
    scores = [float(np.mean([_validation_score(record) for record in line.row.records])) for line in lines]
    areas = [line.row.metrics["auroc"].value for line in lines]
    return StrategyChoice(lines, scores, _find_best(scores), _find_best(areas))


def _find_best(values: Sequence[float]) -> int:
    """The index of the largest known value; the first of all where none is known, as the AUROC of test images of one class is not."""
    return int(np.argmax(np.where(np.isnan(values), -np.inf, values)))


def _validation_score(record: Record) -> float:
    score = record.meta.selection.get("score")
    return float(score) if isinstance(score, int | float) else float("nan")


def measure_costs(sections: Sequence[Section]) -> list[StrategyCost]:
    """The cost of every strategy and device, in the order of the registry."""
    groups: dict[tuple[str, str], dict[str, Record]] = defaultdict(dict)
    for section in sections:
        for row in section.rows:
            for record in row.records:
                if record.meta.cost:
                    groups[section.protocol, record.meta.device][record.identity.id] = record
    keys = sorted(groups, key=lambda key: (strategy_order(key[0]), key))
    return [_measure_cost(protocol, device, list(groups[protocol, device].values())) for protocol, device in keys]


def _measure_cost(protocol: str, device: str, records: Sequence[Record]) -> StrategyCost:
    costs = [record.meta.cost for record in records]
    seconds = np.array([record.meta.seconds.get("fit", np.nan) for record in records])
    parameters, images = ([int(cost[name]) for cost in costs] for name in ("trained_parameters", "images_seen"))
    return StrategyCost(
        strategy=split_protocol(protocol)[1] or FULL,
        cells=len(records),
        trained_parameters=(min(parameters), max(parameters)),
        memory_bytes=max(int(cost["memory_bytes"]) for cost in costs),
        images_seen=(min(images), max(images)),
        fit_seconds=(float(seconds.min()), float(np.median(seconds)), float(seconds.max())),
        hours=sum(record.meta.seconds.get("total", 0.0) for record in records) / SECONDS_PER_HOUR,
        device=device,
    )
