"""The rows of a table, and the sections of rows that may be compared.

A section holds the rows with the same task, targets, split, protocol, protocol hash and precision of features. Records of
several folds or draws form one row.
`build` makes them from records; `comparisons` compares them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from encoders.runtime.precision_names import FeaturePrecision
from transfer.records.cached_results import cached_result
from transfer.records.record import Identity, Record
from transfer.stats import Difference, Interval

COUNTED_COLUMNS = {"images": "key", "patients": "patient"}
TABLE_METRICS = ("auroc", "ap", "balanced_accuracy")
Relation = Literal["same architecture", "other architecture"]


@dataclass(frozen=True)
class Comparison:
    """A row compared with another on the same test patients. difference: of AUROC.  others: of the other metrics, without verdicts.

    primary: the comparison that the table's own column and the headline show, with the strongest baseline."""

    reference: str
    relation: Relation
    difference: Difference
    others: dict[str, Difference] = field(default_factory=dict)
    primary: bool = False


@dataclass(eq=False)
class Row:
    """One encoder with one protocol at one label fraction; few-shot: at one number of shots.

    metrics: over the section's judged labels.  all_labels: the same metrics over all labels, without intervals, if a label is left out."""

    encoder: str
    role: str
    protocol: str
    fraction: float
    metrics: dict[str, Interval]
    records: list[Record]
    shots: int | None = None
    comparisons: list[Comparison] = field(default_factory=list)
    all_labels: dict[str, float] = field(default_factory=dict)
    draw_std: float = float("nan")  # standard deviation of the AUROC over draws of the labeled patients
    seed_std: float = float("nan")  # the same over seeds: of pretraining if `seeds` is not empty, else of the protocol
    seeds: list[str] = field(default_factory=list)  # the encoders that a row about a recipe averages
    notes: list[str] = field(default_factory=list)  # warnings below the table
    episodes_note: str = ""  # few-shot: AUROC of single episodes; printed below the table, not a warning

    @property
    def primary(self) -> Comparison | None:
        """The comparison with the strongest baseline; None if the row is compared with nothing."""
        return next((c for c in self.comparisons if c.primary), None)

    @property
    def difference(self) -> Difference | None:
        """The difference to the strongest baseline."""
        return None if self.primary is None else self.primary.difference

    @property
    def reference(self) -> str:
        """The strongest baseline, or ""."""
        return "" if self.primary is None else self.primary.reference

    @property
    def auroc_name(self) -> str:
        """The row's AUROC in `row_estimates`: of the scores, or the mean over episodes at a number of shots."""
        return "auroc" if self.shots is None else f"auroc@{self.shots}"

    @property
    def arch(self) -> str:
        return self.records[0].meta.arch

    @property
    def labels_order(self) -> tuple[int, int, float]:
        """Sorts rows by their number of labels: shots, then patients, then shares."""
        requested = next((r.identity.patients for r in self.records), None)
        share = (1, self.fraction) if requested is None else (0, float(requested))
        return self.shots or 0, *share

    @property
    def labels_title(self) -> str:
        """How much of the labels: `, 8 shots`, `, 20 patients`, `, 10% of the labels`, or nothing for all."""
        if self.shots is not None:
            return f", {self.shots} shot{'' if self.shots == 1 else 's'}"
        requested = next((r.identity.patients for r in self.records), None)
        if requested is not None:
            return f", {requested} patients"
        return "" if self.fraction == 1 else f", {self.fraction:.0%} of the labels"


@dataclass(frozen=True)
class LabelCount:
    """Test patients with and without one label."""

    name: str
    positive: int
    negative: int


@dataclass
class Section:
    """Rows that may be compared with each other.

    judged: indices of the labels that the metrics are means over; None: all.  rare: the labels that are left out, with too few patients."""

    task: str
    labels: str
    partition: str
    protocol: str
    protocol_hash: str
    rows: list[Row] = field(default_factory=list)
    failed: list[Record] = field(default_factory=list)
    majority: dict[str, float] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    splits: tuple[str, ...] = ()
    store: str = ""
    precision: FeaturePrecision = "fp32"
    judged: tuple[int, ...] | None = None
    rare: tuple[LabelCount, ...] = ()


def name_settings(sections: Sequence[Section]) -> str:
    """The protocols of these sections, each with its hash, and with the precision of its features unless that is fp32."""
    return ", ".join(f"{s.protocol} {s.protocol_hash[:8]}{'' if s.precision == 'fp32' else f' {s.precision}'}" for s in sections)


def task_name(i: Identity) -> str:
    """The tested task; for external validation also the task that was selected on."""
    return i.task if i.selected_on is None else f"{i.task} from {i.selected_on.task}"


def count_tested(records: Sequence[Record]) -> dict[str, int]:
    """Number of test images and test patients of all these records, each counted once."""
    return cached_result(
        "tested", records, (), dict[str, int], lambda: {n: _count_distinct(records, c) for n, c in COUNTED_COLUMNS.items()}
    )


def _count_distinct(records: Sequence[Record], column: str) -> int:
    arrays = {id(array): array for array in (r.arrays[f"test_{column}"] for r in records)}  # most records share their test images
    return len(np.unique(np.concatenate([array.astype(str) for array in arrays.values()])))


def most_shots(section: Section) -> int | None:
    """The largest number of shots of a section; None without few-shot rows."""
    return max((row.shots for row in section.rows if row.shots is not None), default=None)


def rows_at_largest_fraction(section: Section) -> list[Row]:
    """The rows with the largest label fraction, with all numbers of shots."""
    most = max((row.fraction for row in section.rows), default=1.0)
    return [row for row in section.rows if row.fraction == most]


def rows_with_most_labels(section: Section) -> list[Row]:
    """The rows with the largest label fraction; of few-shot rows, those with most shots."""
    return [row for row in rows_at_largest_fraction(section) if row.shots in (None, most_shots(section))]


def rows_by_records(section: Section) -> list[Row]:
    """The rows without those that share their records with another: of few-shot rows, those with most shots."""
    return [row for row in section.rows if row.shots in (None, most_shots(section))]


def group_sections(sections: Sequence[Section]) -> list[list[Section]]:
    """Blocks of sections with the same task, targets and split: one table. Two hashes of one protocol, or two
    precisions of its features, are never in the same block."""
    blocks: list[list[Section]] = []
    for s in sections:
        fitting = [b for b in blocks if (b[0].task, b[0].labels, b[0].store, b[0].partition) == (s.task, s.labels, s.store, s.partition)]
        fitting = [b for b in fitting if s.protocol not in {other.protocol for other in b}]
        fitting[0].append(s) if fitting else blocks.append([s])
    return blocks
