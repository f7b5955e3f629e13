"""Every metric for every group of test images (sex, age band, view, site), and how far a group's AUROC lies from that of all others.

Thresholds and temperature are those that the whole validation part chose: one rule for everybody is what is asked about. Records of
several folds and draws give the mean of their values; a group that a fold lacks is left out of its mean.

Shapes: M test images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.errors import InputError, unknown_name_error
from transfer.metrics import ValidationChoice, average_precision, balanced_accuracy, choose_on_validation, compute_all_metrics
from transfer.records.record import Record
from transfer.stats import MIN_PATIENTS, Difference, Interval, holm, patients_per_class, pooled_gap, pooled_interval
from transfer.stats.areas import ScoredRows
from transfer.tasks.group_columns import AGE_BANDS, name_groups, order_groups

ALL_IMAGES = "all"
Mask = NDArray[np.bool_]


@dataclass
class Subgroup:
    """One group of one encoder's test images. `gap`: its AUROC minus that of all other images; None for everybody."""

    axis: str  # column, e.g. "sex"; "" for everybody
    name: str  # e.g. "F", "18 to under 40"
    images: int
    patients: int
    fewest: int  # patients in the smaller class: what an interval hangs on
    metrics: dict[str, float]  # of `transfer.metrics.panel`
    intervals: dict[str, Interval]  # auroc (clustered DeLong); ap, balanced_accuracy (patient bootstrap)
    gap: Difference | None = None
    adjusted: float = float("nan")  # the gap's p-value by Holm over all gaps of this encoder
    notes: list[str] = field(default_factory=list)


def list_group_columns(records: Sequence[Record]) -> list[str]:
    """The columns by which all of these records can be divided."""
    each = [set(r.groups) for r in records if r.meta.status == "ok"]
    return sorted(set.intersection(*each)) if each else []


def compute_subgroups(
    records: Sequence[Record], by: Sequence[str] | None = None, bands: Sequence[float] = AGE_BANDS, resamples: int = 1000
) -> list[Subgroup]:
    """Everybody, then every group of every column; records: of one row of a table. by: columns; None: all that there are.

    Raises InputError for a column that the records do not hold."""
    known = list_group_columns(records)
    for column in by or ():
        if column not in known:
            raise unknown_name_error("column of the records", column, known, "(bench again to take it from /meta of the task's store)")
    rules = [choose_on_validation(*r.part("val")[:2], r.meta.kind) for r in records]
    of = partial(_measure_subgroup, records, rules, resamples)
    found = [of("", ALL_IMAGES, [np.ones(len(r.arrays["test_y"]), bool) for r in records])]
    for column in known if by is None else by:
        names = [name_groups(column, r.groups[column], bands) for r in records]
        for name in order_groups(column, np.concatenate(names), bands):
            found.append(of(column, name, [n == name for n in names]))
    adjusted = holm(np.array([g.gap.p if g.gap else np.nan for g in found]))
    for group, p in zip(found, adjusted, strict=True):
        group.adjusted = float(p)
    return found


def _measure_subgroup(
    records: Sequence[Record], rules: Sequence[ValidationChoice], resamples: int, axis: str, name: str, masks: Sequence[Mask]
) -> Subgroup:
    kept = [(r, rule, mask) for r, rule, mask in zip(records, rules, masks, strict=True) if mask.any()]
    each = [compute_all_metrics(r.arrays["test_y"][m], r.arrays["test_scores"][m], rule) for r, rule, m in kept]
    inside, outside = mask_test_parts(records, masks), mask_test_parts(records, [~m for m in masks])
    counts = _count_images_and_patients(records, masks)
    intervals = {"auroc": pooled_interval(inside)} | {
        key: _subgroup_interval(kept, metric, resamples)
        for key, metric in (("ap", _ap_metric), ("balanced_accuracy", _balanced_accuracy_metric))
    }
    gap = pooled_gap(inside, outside) if outside else None
    made = Subgroup(axis, name, *counts, {key: _mean_defined([e[key] for e in each if key in e]) for key in each[0]}, intervals, gap)
    if counts[2] < MIN_PATIENTS:
        made.notes.append(f"too few: {counts[2]} patients in a class, at least {MIN_PATIENTS} are needed")
    return made


def mask_test_parts(records: Sequence[Record], masks: Sequence[Mask]) -> list[list[ScoredRows]]:
    """The masked test parts, fold by fold, as `pooled_interval` takes them; empty ones left out."""
    folds: dict[int, list[ScoredRows]] = {}
    for record, mask in zip(records, masks, strict=True):
        if mask.any():
            y, s, patient = record.part("test")
            folds.setdefault(record.identity.fold, []).append((y[mask], s[mask], patient[mask]))
    return list(folds.values())


def _count_images_and_patients(records: Sequence[Record], masks: Sequence[Mask]) -> tuple[int, int, int]:
    """Images, patients, and patients in the smaller class of the label that has fewest; draws of a fold counted once."""
    once = {r.identity.fold: (r, m) for r, m in zip(records, masks, strict=True)}.values()
    y, patient = (np.concatenate([r.arrays[f"test_{what}"][m] for r, m in once]) for what in ("y", "patient"))
    return len(y), len(np.unique(patient.astype(str))), int(patients_per_class(y, patient).min())


def _ap_metric(rule: ValidationChoice) -> Callable[..., Any]:
    return average_precision


def _balanced_accuracy_metric(rule: ValidationChoice) -> Callable[..., Any]:
    return partial(balanced_accuracy, kind=rule.kind, threshold=rule.threshold)


def _subgroup_interval(
    kept: Sequence[tuple[Record, ValidationChoice, Mask]], metric: Callable[[ValidationChoice], Callable[..., Any]], resamples: int
) -> Interval:
    from transfer.tables.rows import bootstrap_interval

    cut = [_mask_record(record, mask) for record, _, mask in kept]
    rules = {id(record): rule for record, (_, rule, _) in zip(cut, kept, strict=True)}
    return bootstrap_interval(cut, lambda record: metric(rules[id(record)]), resamples)


def _mask_record(record: Record, mask: Mask) -> Record:
    """The record with only some of its test images."""
    whole = ("test_key", "test_patient", "test_y", "test_scores")
    return Record(record.meta, {**record.arrays, **{name: record.arrays[name][mask] for name in whole}})


def _mean_defined(values: Sequence[float]) -> float:
    known = [v for v in values if not np.isnan(v)]
    return float(np.mean(known)) if known else float("nan")


def parse_age_bands(text: str) -> tuple[float, ...]:
    """`18,40,65` as numbers. Raises InputError unless they ascend."""
    try:
        bands = tuple(float(part) for part in text.split(","))
    except ValueError:
        bands = ()
    if not bands or any(b <= a for a, b in pairwise(bands)):
        raise InputError(f"--age-bands is {text!r}; expected ascending ages in years, e.g. 18,40,65")
    return bands
