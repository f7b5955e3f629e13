"""Strategies of fine-tuning beside each other: one row for each strategy of an encoder, with cost and difference to full fine-tuning.

Rows are compared if only the strategy and its own settings differ: the other settings of fine-tuning, which decide images, augmentation and
validations, form one family of protocol hashes. Differences are paired by test patient; Holm's correction is over the rows of the table.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from encoders.runtime.config import json_digest
from transfer.losses.settings import IMBALANCE_GROUPS
from transfer.metrics import ece
from transfer.metrics.decisions import confusion_matrix, decide_classes, recall_from_confusion
from transfer.metrics.operating import choose_thresholds
from transfer.metrics.panel import are_probabilities, calibrated_columns
from transfer.protocols import protocol_order
from transfer.records.cached_results import cached_result
from transfer.records.record import Record
from transfer.stats import Difference, correct_family
from transfer.strategies.names import FINETUNE, FULL, GROUPS, split_protocol
from transfer.tables.comparisons import compare_rows
from transfer.tables.rows import Row, Section
from transfer.tables.search_rows import find_search

MEGABYTE = 1e6


@dataclass(frozen=True)
class StrategyLine:
    """A strategy of one encoder at one label fraction. The numbers are means over its records.

    rare_recall: recall of the class with the fewest test images, at the threshold from validation images.  ece: calibration error.
    difference: of AUROC, to the row that the table compares with; None for that row."""

    section: Section
    row: Row
    family: str
    strategy: str
    trained_parameters: int
    memory_bytes: int
    memory_source: str
    images_seen: int
    validations: int
    fit_seconds: float
    rare_class: str
    rare_recall: float
    ece: float
    difference: Difference | None = None


def build_strategy_tables(sections: Sequence[Section]) -> list[list[StrategyLine]]:
    """A table for every encoder, label fraction and family that has several strategies. The first row is the one compared with.

    That is full fine-tuning, or without it the first strategy of the registry."""
    groups: dict[tuple[object, ...], list[StrategyLine]] = defaultdict(list)
    for section in sections:
        if split_protocol(section.protocol)[0] != FINETUNE:
            continue
        for row in section.rows:
            if not row.seeds and row.records[0].meta.cost:
                line = _measure_row(section, row)
                weights = row.records[0].identity.encoder_sha256, row.records[0].identity.card
                where = section.task, section.labels, section.store, section.partition, line.family
                groups[(*where, row.encoder, *weights, row.labels_order)].append(line)
    return [_compare_lines(lines) for lines in groups.values() if len(lines) > 1]


def _measure_row(section: Section, row: Row) -> StrategyLine:
    costs = [record.meta.cost for record in row.records]
    rare = [record_rare_recall(record) for record in row.records]
    return StrategyLine(
        section,
        row,
        hash_family(row.records[0]),
        split_protocol(section.protocol)[1] or FULL,
        max(int(cost["trained_parameters"]) for cost in costs),
        max(int(cost["memory_bytes"]) for cost in costs),
        str(costs[0]["memory_source"]),
        round(float(np.mean([cost["images_seen"] for cost in costs]))),
        round(float(np.mean([cost["validations"] for cost in costs]))),
        float(np.mean([find_fit_seconds(record) for record in row.records])),
        rare[0][0],
        float(np.mean([recall for _, recall in rare])),
        float(np.mean([record_calibration_error(record) for record in row.records])),
    )


def find_fit_seconds(record: Record) -> float:
    """The seconds of training; of a search those of all trials, also if it was interrupted."""
    return max(record.meta.seconds.get("fit", float("nan")), float(find_search(record).get("seconds", 0.0)))


def hash_family(record: Record) -> str:
    """16 hex digits of all settings of fine-tuning but strategy, imbalance and their own; equal ones see as many images and validations.

    Class weights that are balanced, the default, are an approach to imbalance too."""
    config = record.meta.protocol_config
    own = {"strategy", "imbalance", "seed", *GROUPS, *IMBALANCE_GROUPS} | (
        {"class_weight"} if config.get("class_weight") == "balanced" else set()
    )
    return json_digest({name: value for name, value in config.items() if name not in own})


def _compare_lines(lines: list[StrategyLine]) -> list[StrategyLine]:
    """The lines with their differences to the first, which is full fine-tuning if there is one."""
    ordered = sorted(lines, key=lambda line: (line.strategy != FULL, protocol_order(line.section.protocol), line.strategy))
    first = ordered[0]
    found = [compare_rows(line.row, first.row, first.section.judged) for line in ordered[1:]]
    corrected = iter(correct_family([difference for difference in found if difference is not None]))
    differences = [None if difference is None else next(corrected) for difference in found]
    return [first, *(replace(line, difference=d) for line, d in zip(ordered[1:], differences, strict=True))]


def record_rare_recall(record: Record) -> tuple[str, float]:
    """The rarest class of the test part and its recall; of a binary or multi-label task the rarest of all labels' two sides."""
    kind, classes = record.meta.kind, record.meta.classes

    def compute() -> tuple[str, float]:
        (y, scores, _), (val_y, val_scores, _) = record.part("test"), record.part("val")
        tables = decide_classes(y, scores, kind, choose_thresholds(val_y, val_scores) if kind != "multiclass" else 0.5)
        sides = []
        for name, (true, predicted, n) in zip([""] if kind == "multiclass" else classes, tables, strict=True):
            counts, recall = np.bincount(true[true >= 0], minlength=n), recall_from_confusion(confusion_matrix(true, predicted, n))
            titles = classes if kind == "multiclass" else [f"no {name}", name]
            sides += [(int(counts[k]), titles[k], float(recall[k])) for k in range(n) if counts[k]]
        _, title, value = min(sides)
        return title, value

    return cached_result("rare recall", [record], (), tuple[str, float], compute)


def record_calibration_error(record: Record) -> float:
    """The expected calibration error of the test scores, mean over labels; NaN for scores that are not probabilities."""

    def compute() -> float:
        y, scores, _ = record.part("test")
        if not are_probabilities(scores):
            return float("nan")
        return float(np.nanmean(ece(*calibrated_columns(y, np.clip(scores, 0, 1), record.meta.kind))))

    return cached_result("calibration error", [record], (), float, compute)
