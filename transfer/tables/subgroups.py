"""Every metric per subgroup of test images (sex, age band, view, site), and the AUROC difference of each subgroup to all other images.

Thresholds and temperature are chosen on the whole validation part, as the same rule applies to all patients. Records of several folds and
draws give the mean of their values; folds without images of a subgroup are excluded from its mean.

Shapes: M test images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np

from encoders.runtime.arrays import BoolArray
from encoders.runtime.errors import InputError, unknown_name_error
from transfer.metrics import ValidationChoice, choose_on_validation, compute_all_metrics
from transfer.records.cached_results import cached_result
from transfer.records.record import EPISODE_PREFIXES, Record
from transfer.stats import MIN_PATIENTS, Difference, Interval, holm, patients_per_class, pooled_gap
from transfer.stats.permutation import ScoredRows
from transfer.tables.row_estimates import row_interval
from transfer.tables.rows import TABLE_METRICS
from transfer.tasks.group_columns import AGE_BANDS, identifies_people, name_groups, order_groups

ALL_IMAGES = "all"


@dataclass
class Subgroup:
    """One subgroup of one encoder's test images. gap: its AUROC minus that of all other images; None for the group of all images."""

    column: str  # e.g. "sex"; "" for the group of all images
    name: str  # e.g. "F", "18 to under 40"
    images: int
    patients: int
    smaller_class_patients: int  # decides whether the intervals are valid
    metrics: dict[str, float]  # as `compute_all_metrics` names them
    intervals: dict[str, Interval]  # auroc, ap, balanced_accuracy; over test patients
    gap: Difference | None = None
    holm_p: float = float("nan")  # the gap's p-value after Holm correction over all gaps of this encoder
    notes: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """`sex: F`, or `all`."""
        return f"{self.column}: {self.name}" if self.column else self.name


def list_group_columns(records: Sequence[Record]) -> list[str]:
    """The group columns that all of these records have."""
    each = [set(list_shown_columns(r)) for r in records if r.meta.status == "ok"]
    return sorted(set.intersection(*each)) if each else []


def list_shown_columns(record: Record) -> list[str]:
    """The group columns of one record, sorted, but those of names and dates, which records of earlier versions may have; kept on disk.

    Nothing that is passed on may list the values of another column."""
    shown = lambda: [name for name, values in sorted(record.groups.items()) if not identifies_people(name, values)]  # noqa: E731
    return cached_result("shown group columns", [record], (), list[str], shown) if record.group_columns else []


def compute_subgroups(records: Sequence[Record], by: Sequence[str] | None = None, bands: Sequence[float] = AGE_BANDS) -> list[Subgroup]:
    """The group of all images, then every subgroup of every column. records: of one table row.  by: columns; None: all columns.

    Raises InputError for a column that the records do not have."""
    known = list_group_columns(records)
    for column in by or ():
        if column not in known:
            hint = "(records take their columns from /meta of the task's store; `transfer bench` adds new ones to them)"
            raise unknown_name_error("column of the records", column, known, hint)
    columns = known if by is None else by
    return cached_result("subgroups", records, (columns, bands), list[Subgroup], lambda: _measure_columns(records, columns, bands))


def _measure_columns(records: Sequence[Record], columns: Sequence[str], bands: Sequence[float]) -> list[Subgroup]:
    choices = [choose_on_validation(*r.part("val")[:2], r.meta.kind, order=r.class_order) for r in records]
    measure = partial(_measure_subgroup, records, choices)
    groups = [measure("", ALL_IMAGES, [np.ones(len(r.arrays["test_y"]), bool) for r in records])]
    for column in columns:
        names = [name_groups(column, r.groups[column], bands) for r in records]
        for name in order_groups(column, np.concatenate(names), bands):
            groups.append(measure(column, name, [n == name for n in names]))
    corrected = holm(np.array([g.gap.p if g.gap else np.nan for g in groups]))
    for group, p in zip(groups, corrected, strict=True):
        group.holm_p = float(p)
    return groups


def _measure_subgroup(
    records: Sequence[Record], choices: Sequence[ValidationChoice], column: str, name: str, masks: Sequence[BoolArray]
) -> Subgroup:
    kept = [(r, choice, mask) for r, choice, mask in zip(records, choices, masks, strict=True) if mask.any()]
    per_record = [compute_all_metrics(r.arrays["test_y"][m], r.arrays["test_scores"][m], choice) for r, choice, m in kept]
    inside, outside = mask_test_parts(records, masks), mask_test_parts(records, [~m for m in masks])
    counts = _count_images_and_patients(records, masks)
    masked = [_mask_record(record, mask) for record, _, mask in kept]
    intervals = {metric: row_interval(masked, metric) for metric in TABLE_METRICS}
    gap = pooled_gap(inside, outside) if outside else None
    metrics = {key: _mean_defined([values[key] for values in per_record if key in values]) for key in per_record[0]}
    group = Subgroup(column, name, *counts, metrics, intervals, gap)
    if counts[2] < MIN_PATIENTS:
        group.notes.append(f"insufficient patients: {counts[2]} in the smaller class, at least {MIN_PATIENTS} are needed")
    return group


def mask_test_parts(records: Sequence[Record], masks: Sequence[BoolArray]) -> list[list[ScoredRows]]:
    """The masked test parts by fold, as `pooled_interval` takes them, without empty ones."""
    folds: dict[int, list[ScoredRows]] = {}
    for record, mask in zip(records, masks, strict=True):
        if mask.any():
            y, s, patient = record.part("test")
            folds.setdefault(record.identity.fold, []).append((y[mask], s[mask], patient[mask]))
    return list(folds.values())


def _count_images_and_patients(records: Sequence[Record], masks: Sequence[BoolArray]) -> tuple[int, int, int]:
    """Images, patients, and patients in the smaller class of the label with fewest; draws of a fold are counted once."""
    once = {r.identity.fold: (r, m) for r, m in zip(records, masks, strict=True)}.values()
    y, patient = (np.concatenate([r.arrays[name][m] for r, m in once]) for name in ("test_y", "test_patient"))
    return len(y), len(np.unique(patient.astype(str))), int(patients_per_class(y, patient).min())


def _mask_record(record: Record, mask: BoolArray) -> Record:
    """The record with a subset of its test images, without its few-shot episodes, which were measured on all of them."""
    names = ("test_key", "test_patient", "test_y", "test_scores")
    meta = record.meta.model_copy(update={"episodes": {}, "episode_supports": {}})
    kept = {name: values for name, values in record.arrays.items() if not name.startswith(EPISODE_PREFIXES)}
    return Record(meta, {**kept, **{name: record.arrays[name][mask] for name in names}})


def _mean_defined(values: Sequence[float]) -> float:
    known = [v for v in values if not np.isnan(v)]
    return float(np.mean(known)) if known else float("nan")


def parse_age_bands(text: str) -> tuple[float, ...]:
    """`18,40,65` as numbers. Raises InputError unless they are ascending."""
    try:
        bands = tuple(float(part) for part in text.split(","))
    except ValueError:
        bands = ()
    if not bands or any(b <= a for a, b in pairwise(bands)):
        raise InputError(f"--age-bands is {text!r}; expected ascending ages in years, e.g. 18,40,65")
    return bands
