"""Scores by study or by patient: the rows of a record combined before any metric, as CheXpert is scored (Irvin et al. 2019).

A unit is positive for a label if one of its images is, unknown if none is and one is unknown, else negative. In a multi-class task its
images must agree, unless the classes have an order: then the highest counts. Validation rows are combined in the same way, because
thresholds and temperature are chosen on them.

Shapes: M images of a part, U units, C target columns.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from encoders.runtime.arrays import Array, BoolArray, FloatArray, IntArray
from encoders.runtime.errors import InputError
from encoders.runtime.unknown_values import find_unknown
from transfer.records.cached_results import cached_result, derived_digest
from transfer.records.record import EPISODE_PREFIXES, GROUP_PREFIX, Meta, Record
from transfer.records.stored_arrays import share_array
from transfer.tasks.options import Combination, ScoreUnit

PLURALS: Mapping[ScoreUnit, str] = {"image": "images", "study": "studies", "patient": "patients"}
MIXED = "mixed"  # group of a unit whose images are of several groups


@dataclass(frozen=True)
class ScoreRule:
    """by: what a row of a table's metrics is.  combine: how the scores of its images become one."""

    by: ScoreUnit = "image"
    combine: Combination = "mean"

    def describe(self) -> str:
        """`study, mean over its images`; "" for images, which is the default."""
        return "" if self.by == "image" else f"{self.by}, {self.combine} over its images"


def choose_score_rule(by: ScoreUnit, combine: Combination | None) -> ScoreRule:
    """The rule of --score-by and --combine. Raises InputError for --combine without a unit of several images."""
    if by == "image" and combine is not None:
        raise InputError(f"--combine {combine} combines the images of a study or a patient; name one with --score-by study or patient")
    return ScoreRule(by, combine or "mean")


def combine_records(records: Sequence[Record], rule: ScoreRule) -> tuple[list[Record], list[str]]:
    """The records with one row per unit, and sentences for the user about them. Failed records stay as they are.

    Single few-shot episodes are of images and are left out.  Raises InputError for a record without studies, for `max` of classes, and for
    images of a unit with different classes."""
    if rule.by == "image":
        return list(records), []
    combined, messages = [], []
    for record in records:
        new, lines = combine_record(record, rule) if record.meta.status == "ok" else (record, [])
        combined.append(new)
        messages += lines
    return combined, list(dict.fromkeys(messages))


class UnitSummary(NamedTuple):
    """What is known of a combined record without its arrays. units: number of test units."""

    units: int
    messages: list[str]
    names: list[str]


def combine_record(record: Record, rule: ScoreRule) -> tuple[Record, list[str]]:
    """As `combine_records`, for one record of images. Its rows are combined when they are used."""
    meta, name = record.meta, f"{record.identity.task}: "
    if meta.kind == "multiclass" and rule.combine == "max":
        raise InputError(
            f"{name}--combine max is for binary and multi-label tasks: the largest probabilities of several classes do not add up to 1; "
            "use --combine mean, or choose other tasks with --task"
        )
    combine = cache(lambda: _combine_arrays(record, rule))

    def summarize() -> UnitSummary:
        arrays = combine()  # raises where the images of a unit do not fit together
        lines = describe_units(record, find_units(record, "test", rule.by), rule)
        return UnitSummary(len(arrays["test_y"]), [name + line for line in lines], list(arrays))

    known = cached_result("units", [record], (rule.by, rule.combine), UnitSummary, summarize)
    counts = {**meta.counts, "test": {**meta.counts.get("test", {}), PLURALS[rule.by]: known.units}}
    changes = {"scored_by": rule.describe(), "counts": counts, "episodes": {}, "episode_supports": {}}
    digest = derived_digest(record, rule.by, rule.combine)
    return Record(meta.model_copy(update=changes), CombinedArrays(known.names, combine), digest, record.statistics), known.messages


class CombinedArrays(Mapping[str, Array]):
    """The arrays of a record with one row per unit, combined when the first of them is used."""

    def __init__(self, names: Sequence[str], combine: Callable[[], Mapping[str, Array]]):
        self._names, self._combine = dict.fromkeys(names), combine

    def __getitem__(self, name: str) -> Array:
        return self._combine()[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _combine_arrays(record: Record, rule: ScoreRule) -> dict[str, Array]:
    """The arrays of a record with one row per unit."""
    meta = record.meta
    arrays = {k: record.arrays[k] for k in record.arrays if not k.startswith((*EPISODE_PREFIXES, GROUP_PREFIX))}
    units_of: dict[str, IntArray] = {}
    for part in ("val", "test"):
        unit = units_of[part] = find_units(record, part, rule.by)
        order, start = sort_units(unit, record.arrays[f"{part}_key"])
        y, s = (record.arrays[f"{part}_{column}"][order] for column in ("y", "scores"))
        arrays[f"{part}_image_key"] = record.arrays[f"{part}_key"]
        for column in ("key", "patient", "study"):
            if f"{part}_{column}" in record.arrays:
                arrays[f"{part}_{column}"] = share_array(f"{part}_{column} by unit", record.arrays[f"{part}_{column}"][order][start])
        arrays[f"{part}_y"] = combine_labels(y, start, meta, rule)
        arrays[f"{part}_scores"] = combine_scores(s, start, rule.combine)
    order, start = sort_units(units_of["test"], record.arrays["test_key"])
    return arrays | {GROUP_PREFIX + group: combine_groups(values[order], start) for group, values in record.groups.items()}


def find_units(record: Record, part: str, by: ScoreUnit) -> IntArray:
    """(M,) the unit of every image of a part, as a code from 0. A study belongs to one patient, so equal names of two patients are two.

    An image without a study is a unit of its own.  Raises InputError for a record without studies."""
    patient = encode_names(record.arrays[f"{part}_patient"])
    if by == "patient":
        return patient
    study = record.arrays.get(f"{part}_study")
    if study is None:
        i = record.identity
        raise InputError(
            f"the record of {i.encoder} on {i.task} ({i.protocol}) has no studies; if the store has a column `study`, run "
            f"`transfer bench --task {i.task}` again, which adds it without scoring again; otherwise use --score-by patient"
        )
    unknown = find_unknown(study, names=True)
    own = np.where(unknown, np.arange(len(study)) + 1, 0)  # a code of its own for every image without a study
    return encode_names(np.array([f"{p} {o} {name}" for p, o, name in zip(patient, own, np.where(unknown, "", study), strict=True)]))


def encode_names(names: Array) -> IntArray:
    """(M,) names as codes from 0."""
    return np.unique(names.astype(str), return_inverse=True)[1].reshape(-1)


def sort_units(unit: IntArray, key: Array) -> tuple[IntArray, IntArray]:
    """(M,) the order that puts the images of a unit together, by key, and (U,) where each unit begins: at its first key."""
    order = np.lexsort((key.astype(str), unit))
    ordered = unit[order]
    return order, np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])


def combine_scores(s: Array, start: IntArray, combine: Combination) -> FloatArray:
    """(U, C) the mean or the largest score of each unit. s: (M, C), units together.  start: (U,)."""
    if combine == "max":
        return np.asarray(np.maximum.reduceat(s, start, axis=0), dtype=np.float64)
    sizes = np.diff(np.append(start, len(s)))
    return np.asarray(np.add.reduceat(s.astype(np.float64), start, axis=0) / sizes[:, None])


def combine_labels(y: Array, start: IntArray, meta: Meta, rule: ScoreRule) -> Array:
    """(U, C) the labels of each unit. y: (M, C), units together.  Raises InputError for images of a unit with different classes."""
    positive = np.maximum.reduceat(y > 0.5, start, axis=0)  # NaN is not
    unknown = np.logical_or.reduceat(np.isnan(y), start, axis=0)
    if meta.kind != "multiclass":
        return np.where(positive, 1.0, np.where(unknown, np.nan, 0.0)).astype(y.dtype)
    several = positive.sum(axis=1) > 1
    if several.any() and not meta.order:
        raise InputError(
            f"{meta.identity.task}: {int(several.sum())} of {len(start)} {PLURALS[rule.by]} have images of different classes; if the "
            "classes are grades, give the task an --order (then the highest counts), else score by image"
        )
    columns = [meta.classes.index(name) for name in meta.order] or list(range(y.shape[1]))
    highest = np.zeros(positive.shape, dtype=y.dtype)
    ranked = positive[:, columns]
    last = len(columns) - 1 - ranked[:, ::-1].argmax(axis=1)  # the highest class that occurs
    highest[np.arange(len(start)), np.array(columns)[last]] = 1
    highest[~positive.any(axis=1)] = np.nan
    return highest


def combine_groups(values: Array, start: IntArray) -> Array:
    """(U,) the group of each unit from those of its images (M,): the mean of numbers; of texts the one that occurs, or `mixed`."""
    if values.dtype.kind in "fiu":
        known = ~np.isnan(values.astype(np.float64))
        total = np.add.reduceat(np.where(known, values, 0.0), start)
        count = np.add.reduceat(known.astype(np.float64), start)
        return np.asarray(np.divide(total, count, out=np.full(len(start), np.nan), where=count > 0))
    texts = [sorted({t for t in part.tolist() if t.strip()}) for part in np.split(values.astype(str), start[1:])]
    return np.array([found[0] if len(found) == 1 else MIXED if found else "" for found in texts])


def describe_units(record: Record, unit: IntArray, rule: ScoreRule) -> list[str]:
    """Sentences about the units of the test part: their number, those whose images differ, and images without a study."""
    order, start = sort_units(unit, record.arrays["test_key"])
    y = record.arrays["test_y"][order]
    plural = PLURALS[rule.by]
    lines = [f"scored by {rule.describe()}: {len(start)} {plural} from {len(unit)} test images"]
    differ = _differs(y, start)
    if differ.any():
        rule_of_labels = "the highest class counts" if record.meta.kind == "multiclass" else "one positive image makes it positive"
        lines.append(f"{int(differ.sum())} of {len(start)} {plural} have images with different labels; {rule_of_labels}")
    alone = int(find_unknown(record.arrays["test_study"], names=True).sum()) if rule.by == "study" else 0
    return lines + ([f"{alone} test images have no study; each counts as a study of its own"] if alone else [])


def _differs(y: Array, start: IntArray) -> BoolArray:
    """(U,) whether a label is positive in one image of the unit and negative in another."""
    both = np.logical_or.reduceat(y > 0.5, start, axis=0) & np.logical_or.reduceat(y <= 0.5, start, axis=0)
    return np.asarray(both.any(axis=1))
