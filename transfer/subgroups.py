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

from encoders.runtime.errors import InputError, unknown
from transfer.groups import BANDS, in_order, named
from transfer.metrics import Chosen, average_precision, balanced_accuracy, chosen, panel
from transfer.record import Record
from transfer.stats import FEW, Difference, Interval, holm, patients_per_class, pooled_gap, pooled_interval
from transfer.stats.areas import Scored

EVERYBODY = "all"
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


def axes(records: Sequence[Record]) -> list[str]:
    """The columns by which all of these records can be divided."""
    each = [set(r.groups) for r in records if r.meta.status == "ok"]
    return sorted(set.intersection(*each)) if each else []


def subgroups(
    records: Sequence[Record], by: Sequence[str] | None = None, bands: Sequence[float] = BANDS, resamples: int = 1000
) -> list[Subgroup]:
    """Everybody, then every group of every column; records: of one row of a table. by: columns; None: all that there are.

    Raises InputError for a column that the records do not hold."""
    known = axes(records)
    for column in by or ():
        if column not in known:
            raise unknown("column of the records", column, known, "(bench again to take it from /meta of the task's store)")
    rules = [chosen(*r.part("val")[:2], r.meta.kind) for r in records]
    of = partial(_measured, records, rules, resamples)
    found = [of("", EVERYBODY, [np.ones(len(r.arrays["test_y"]), bool) for r in records])]
    for column in known if by is None else by:
        names = [named(column, r.groups[column], bands) for r in records]
        for name in in_order(column, np.concatenate(names), bands):
            found.append(of(column, name, [n == name for n in names]))
    adjusted = holm(np.array([g.gap.p if g.gap else np.nan for g in found]))
    for group, p in zip(found, adjusted, strict=True):
        group.adjusted = float(p)
    return found


def _measured(records: Sequence[Record], rules: Sequence[Chosen], resamples: int, axis: str, name: str, masks: Sequence[Mask]) -> Subgroup:
    kept = [(r, rule, mask) for r, rule, mask in zip(records, rules, masks, strict=True) if mask.any()]
    each = [panel(r.arrays["test_y"][m], r.arrays["test_scores"][m], rule) for r, rule, m in kept]
    inside, outside = tests(records, masks), tests(records, [~m for m in masks])
    counts = _counts(records, masks)
    intervals = {"auroc": pooled_interval(inside)} | {
        key: _bootstrapped(kept, metric, resamples) for key, metric in (("ap", _ap), ("balanced_accuracy", _balanced))
    }
    gap = pooled_gap(inside, outside) if outside else None
    made = Subgroup(axis, name, *counts, {key: _mean([e[key] for e in each if key in e]) for key in each[0]}, intervals, gap)
    if counts[2] < FEW:
        made.notes.append(f"too few: {counts[2]} patients in a class, at least {FEW} are needed")
    return made


def tests(records: Sequence[Record], masks: Sequence[Mask]) -> list[list[Scored]]:
    """The masked test parts, fold by fold, as `pooled_interval` takes them; empty ones left out."""
    folds: dict[int, list[Scored]] = {}
    for record, mask in zip(records, masks, strict=True):
        if mask.any():
            y, s, patient = record.part("test")
            folds.setdefault(record.identity.fold, []).append((y[mask], s[mask], patient[mask]))
    return list(folds.values())


def _counts(records: Sequence[Record], masks: Sequence[Mask]) -> tuple[int, int, int]:
    """Images, patients, and patients in the smaller class of the label that has fewest; draws of a fold counted once."""
    once = {r.identity.fold: (r, m) for r, m in zip(records, masks, strict=True)}.values()
    y, patient = (np.concatenate([r.arrays[f"test_{what}"][m] for r, m in once]) for what in ("y", "patient"))
    return len(y), len(np.unique(patient.astype(str))), int(patients_per_class(y, patient).min())


def _ap(rule: Chosen) -> Callable[..., Any]:
    return average_precision


def _balanced(rule: Chosen) -> Callable[..., Any]:
    return partial(balanced_accuracy, kind=rule.kind, threshold=rule.threshold)


def _bootstrapped(kept: Sequence[tuple[Record, Chosen, Mask]], metric: Callable[[Chosen], Callable[..., Any]], resamples: int) -> Interval:
    from transfer.table import interval

    cut = [_cut(record, mask) for record, _, mask in kept]
    rules = {id(record): rule for record, (_, rule, _) in zip(cut, kept, strict=True)}
    return interval(cut, lambda record: metric(rules[id(record)]), resamples)


def _cut(record: Record, mask: Mask) -> Record:
    """The record with only some of its test images."""
    whole = ("test_key", "test_patient", "test_y", "test_scores")
    return Record(record.meta, {**record.arrays, **{name: record.arrays[name][mask] for name in whole}})


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if not np.isnan(v)]
    return float(np.mean(known)) if known else float("nan")


def parsed_bands(text: str) -> tuple[float, ...]:
    """`18,40,65` as numbers. Raises InputError unless they ascend."""
    try:
        bands = tuple(float(part) for part in text.split(","))
    except ValueError:
        bands = ()
    if not bands or any(b <= a for a, b in pairwise(bands)):
        raise InputError(f"--age-bands is {text!r}; expected ascending ages in years, e.g. 18,40,65")
    return bands
