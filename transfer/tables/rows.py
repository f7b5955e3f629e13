"""From records to the rows of a table; nothing is computed that the records do not hold.

A section is what may be compared: one task, one target, one division of patients, one protocol with one hash. Paired differences are
made inside a section only. Records of several folds or draws make one row: the mean, its interval over test patients, and apart from
that the spread over draws.

Shapes: M test images, C columns of the target, B resamples.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from encoders.runtime.errors import InputError
from transfer.metrics import auroc, average_precision, balanced_accuracy, choose_thresholds, macro
from transfer.records.record import Identity, Record
from transfer.stats import Difference, Interval, bootstrap_values, pooled_difference, pooled_interval
from transfer.stats.areas import ScoredRows, count_fewest_over_folds, few_patients_note_over_folds
from transfer.stats.bootstrap import mean_over_labels, percentile_interval
from transfer.stats.common import bound_perfect_interval
from transfer.tasks.split import PARTS

TABLE_RESAMPLES = 1000
COUNTED_COLUMNS = {"images": "key", "patients": "patient"}
TABLE_METRICS = ("auroc", "ap", "balanced_accuracy")


@dataclass
class Row:
    """One encoder under one protocol at one label fraction."""

    encoder: str
    role: str
    protocol: str
    fraction: float
    metrics: dict[str, Interval]
    records: list[Record]
    difference: Difference | None = None
    versus: str = ""
    spread: float = float("nan")  # standard deviation of the AUROC over draws of the labeled patients
    seed_spread: float = float("nan")  # the same over seeds: of pretraining where `seeds` names encoders, else of the protocol
    seeds: list[str] = field(default_factory=list)  # the encoders that a row about a recipe is the mean of
    notes: list[str] = field(default_factory=list)
    remark: str = ""  # told beside the table, with the encoder's name; nothing is wrong


@dataclass
class Section:
    """Rows that may be compared with one another."""

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


def build_sections(
    records: Sequence[Record], baseline: str | None = None, resamples: int = TABLE_RESAMPLES, seeds_of: Sequence[str] = ()
) -> list[Section]:
    """The sections of these records, in order of task and protocol. baseline: the encoder that all differences are to.

    seeds_of: encoders that one recipe gave with different seeds, where their cards do not say so."""
    apart: dict[tuple, list[Record]] = defaultdict(list)
    for record in (r for r in records if r.identity.shift is None):  # scores on shifted images are curves (robust.py), not rows
        i = record.identity
        apart[i.task, i.labels, i.store, i.partition, i.protocol, i.protocol_hash].append(record)
    return [_build_section(apart[key], baseline, resamples, seeds_of) for key in sorted(apart)]


def task_name(i: Identity) -> str:
    """The tested task; of an external test also the one that everything was chosen on."""
    return i.task if i.selected_on is None else f"{i.task} from {i.selected_on.task}"


def _build_section(records: list[Record], baseline: str | None, resamples: int, seeds_of: Sequence[str]) -> Section:
    from transfer.tables import seed_rows

    i = records[0].identity
    section = Section(task_name(i), i.labels, i.partition, i.protocol, i.protocol_hash, store=i.store)
    groups: dict[tuple, list[Record]] = defaultdict(list)
    for record in records:
        if record.meta.status == "failed":
            section.failed.append(record)
        else:
            i = record.identity
            # Numbers of patients are other shares in every fold, and one row all the same.
            share = (0, float(i.patients)) if i.patients is not None else (1, i.fraction)
            weights = i.encoder_sha256, i.card
            groups[record.meta.role == "random", record.meta.role == "imagenet", i.encoder, weights, share].append(record)
    for _, same in sorted(groups.items(), key=lambda item: item[0]):
        section.rows.append(_build_row(sorted(same, key=lambda r: (r.identity.fold, r.identity.draw, r.identity.seed)), resamples))
    _disambiguate_names(section.rows)
    for row in section.rows:
        against = find_reference(row, section.rows, baseline)
        if against is not None:
            row.versus, row.difference = against.encoder, compare_rows(row, against)
            sizes = [r.records[0].meta.size for r in (row, against)]
            if row.role == "encoder" and sizes[0] != sizes[1] and all(sizes):
                row.notes.append(f"{row.encoder} sees {sizes[0]} px, {against.encoder} {sizes[1]} px: the difference is of both")
    of = max(section.rows, key=lambda row: row.fraction).records if section.rows else []  # what a block says of its test and its floor
    section.rows = seed_rows.add_seed_rows(section.rows, seeds_of, baseline)
    good = [r for r in records if r.meta.status == "ok"]
    if good:
        floors = [majority_metrics(r) for r in {r.identity.fold: r for r in of}.values()]
        section.majority = {name: float(np.mean([floor[name] for floor in floors])) for name in floors[0]}
        section.counts = {p: of[0].meta.counts[p] for p in PARTS} if len(floors) == 1 else {"test": count_tested(of)}
        section.splits = tuple(dict.fromkeys(r.identity.split for r in good))
    return section


def count_tested(records: Sequence[Record]) -> dict[str, int]:
    """Images and patients of the test parts of all these records, each counted once."""
    return {
        of: len(set(np.concatenate([r.arrays[f"test_{c}"].astype(str) for r in records]).tolist())) for of, c in COUNTED_COLUMNS.items()
    }


def _disambiguate_names(rows: Sequence[Row]) -> None:
    """Gives rows of one name and different weights (a run that went on, an encoder trained anew) names of their own, and says so."""
    versions: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in rows:
        versions[row.encoder].add((row.records[0].identity.encoder_sha256, row.records[0].identity.card))
    for row in rows:
        several = versions[name := row.encoder]
        if len(several) > 1:
            i = row.records[0].identity
            row.encoder = f"{name} ({(i.encoder_sha256 if len({sha for sha, _ in several}) > 1 else i.card)[:8]})"
            row.notes.append(f"{name} was benched as {len(several)} different encoders of that name; each has a row of its own")


def _build_row(records: list[Record], resamples: int) -> Row:
    i, first = records[0].identity, records[0].meta
    values = {
        "auroc": pooled_auroc(records),
        "ap": bootstrap_interval(records, lambda r: average_precision, resamples),
        "balanced_accuracy": bootstrap_interval(records, thresholded_balanced_accuracy, resamples),
    }
    share = float(np.mean([r.identity.fraction for r in records]))
    row = Row(i.encoder, first.role, i.protocol, i.fraction if i.patients is None else share, values, records)
    row.notes = list(dict.fromkeys(note for note in (v.note for v in values.values()) if note))
    row.remark = describe_episodes(records) if first.episodes else ""
    left_out = macro(auroc(*records[0].part("test")[:2]))[1]
    if left_out:
        row.notes.append(f"{left_out} of {len(first.classes)} labels have one class only in the test part and are left out")
    row.spread, row.seed_spread = (_auroc_std(records, of) for of in ("draw", "seed"))
    return row


def _auroc_std(records: Sequence[Record], of: str) -> float:
    """Standard deviation of the AUROC over draws, or over seeds of the protocol, each the mean of the others; NaN where there is one."""
    each = defaultdict(list)
    for record in records:
        each[getattr(record.identity, of)].append(macro(auroc(*record.part("test")[:2]))[0])
    return float(np.std([np.mean(v) for v in each.values()], ddof=1)) if len(each) > 1 else float("nan")


def pooled_auroc(records: Sequence[Record], column: int | None = None) -> Interval:
    """The AUROC of one record, or its mean over folds and draws; column: of one label only."""
    return pooled_interval(group_by_fold(records, column))


def group_by_fold(records: Sequence[Record], column: int | None = None) -> list[list[ScoredRows]]:
    """The test parts fold by fold, as `pooled_interval` takes them; column: of one label only."""
    folds: dict[int, list[ScoredRows]] = {}
    for record in records:
        y, s, patient = record.part("test")
        kept = slice(None) if column is None else slice(column, column + 1)
        folds.setdefault(record.identity.fold, []).append((y[:, kept], s[:, kept], patient))
    return list(folds.values())


def bootstrap_interval(records: list[Record], metric: Callable[[Record], Callable[..., Any]], resamples: int) -> Interval:
    """The mean over records of a metric, with its interval over test patients; `metric` may depend on the record (its threshold)."""
    each = [_resample_metric(record, metric(record), resamples) for record in records]
    means = [(np.array([macro(full)[0]]), mean_over_labels(values, full)[:, None]) for full, values in each]
    return _mean_intervals(records, means, resamples)[0]


def bootstrap_intervals(records: list[Record], metric: Callable[[Record], Callable[..., Any]], resamples: int) -> list[Interval]:
    """As `interval`, for each column of the metric by itself."""
    return _mean_intervals(records, [_resample_metric(record, metric(record), resamples) for record in records], resamples)


def _mean_intervals(records: list[Record], each: list[tuple[np.ndarray, np.ndarray]], resamples: int) -> list[Interval]:
    """Of the means over records. each: values (C,) and draws (B, C) of every record."""
    tests = group_by_fold(records)
    full = np.mean([value for value, _ in each], axis=0)
    total = sum(draws / len(records) for _, draws in each)
    how, few, fewest = f"patient bootstrap, {resamples} resamples", few_patients_note_over_folds(tests), count_fewest_over_folds(tests)
    ends = [
        bound_perfect_interval(value, *percentile_interval(draws, 0.95), fewest, 0.95)
        for value, draws in zip(full.tolist(), np.transpose(total), strict=True)
    ]
    return [Interval(value, *pair, how, 0.95, few) for value, pair in zip(full.tolist(), ends, strict=True)]


def _resample_metric(record: Record, metric: Callable[..., Any], resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """The metric (C,) on a record's test part, and (B, C) in resamples of its patients; draws of one fold share their resamples."""
    y, s, patient = record.part("test")
    full = np.asarray(metric(y, s), dtype=np.float64).reshape(-1)
    return full, bootstrap_values(metric, y, s, patient, resamples, seed=record.identity.fold)


def thresholded_balanced_accuracy(record: Record) -> Callable[..., Any]:
    """Balanced accuracy at the thresholds that the record's validation part gives (Youden); a multi-class task decides by argmax."""
    return partial(balanced_accuracy, kind=record.meta.kind, threshold=choose_thresholds(*record.part("val")[:2]))


def describe_episodes(records: list[Record]) -> str:
    """The AUROC of a single episode at every number of shots: what one draw of so few images would have given, and how it varies."""
    tables = [r.meta.episodes for r in records]
    shots = sorted(set.intersection(*(set(t) for t in tables)), key=int)
    mean = {s: float(np.mean([t[s]["mean"] for t in tables])) for s in shots}
    sd = {s: float(np.sqrt(np.mean([t[s]["sd"] ** 2 for t in tables]))) for s in shots}
    return "AUROC of single episodes, mean (sd): " + ", ".join(f"{s}-shot {mean[s]:.3f} ({sd[s]:.3f})" for s in shots)


def find_reference(row: Row, rows: Sequence[Row], baseline: str | None) -> Row | None:
    """What `row` is compared to: the named baseline; else ImageNet weights of the same network, else its random weights."""
    others = [r for r in rows if r.fraction == row.fraction and r is not row]
    if baseline is not None:
        return next((r for r in others if baseline in (r.encoder, r.records[0].identity.encoder)), None)
    ranks = {"encoder": ("imagenet", "random"), "imagenet": (), "random": ("imagenet",)}[row.role]
    arch = row.records[0].meta.arch
    for role in ranks:
        fit = [r for r in others if r.role == role and r.records[0].meta.arch == arch]
        fit.sort(key=lambda r: (r.records[0].meta.size != row.records[0].meta.size, r.encoder))
        if fit:
            return fit[0]
    return None


def compare_rows(a: Row, b: Row) -> Difference | None:
    """AUROC of `a` minus that of `b` on the same test patients; None if they were not scored on the same folds and draws."""
    both = pair_test_parts(a, b)
    return None if both is None else pooled_difference(*both)


def pair_test_parts(a: Row, b: Row) -> tuple[list[list[ScoredRows]], list[list[ScoredRows]]] | None:
    """The test parts of both rows, fold by fold on the same images in the same order; None unless `b` has all folds and draws of `a`."""
    place = lambda r: (r.identity.fold, r.identity.draw, r.identity.seed)  # noqa: E731
    theirs = {place(r): r for r in b.records}
    if any(place(r) not in theirs for r in a.records):
        return None
    mine: dict[int, list[ScoredRows]] = {}
    other: dict[int, list[ScoredRows]] = {}
    for one in a.records:
        y, s, t, patient = _align_records(one, theirs[place(one)])
        mine.setdefault(one.identity.fold, []).append((y, s, patient))
        other.setdefault(one.identity.fold, []).append((y, t, patient))
    return list(mine.values()), list(other.values())


def _align_records(a: Record, b: Record) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, both scores and patients on the same test images in the same order."""
    i, j = np.argsort(a.arrays["test_key"]), np.argsort(b.arrays["test_key"])
    if not np.array_equal(a.arrays["test_key"][i], b.arrays["test_key"][j]):
        raise InputError(
            f"records of {a.identity.encoder} and {b.identity.encoder} on {a.identity.task} hold unlike test images; bench again"
        )
    return a.arrays["test_y"][i], a.arrays["test_scores"][i], b.arrays["test_scores"][j], a.arrays["test_patient"][i]


def majority_metrics(record: Record) -> dict[str, float]:
    """What always answering with the most frequent class gets: the floor of every metric."""
    y = record.arrays["test_y"]
    constant = np.broadcast_to(np.nanmean(record.arrays["val_y"], axis=0), y.shape)
    decide = balanced_accuracy(y, constant, kind=record.meta.kind)
    return {"auroc": macro(auroc(y, constant))[0], "ap": macro(average_precision(y, constant))[0], "balanced_accuracy": macro(decide)[0]}


def wandb_summary(parts: Sequence[Section], encoder: str) -> Mapping[str, float]:
    """Flat scalars of one encoder for W&B: `bench/<task>/<protocol>/<metric>`; never a patient or a path."""
    flat: dict[str, float] = {}
    for section in parts:
        for row in (r for r in section.rows if r.encoder == encoder):
            share = "" if row.fraction == 1 else f"@{row.fraction:g}"
            at = f"bench/{section.task}/{section.protocol}{share}"
            if any(r.meta.leakage for r in row.records):
                flat[f"{at}/leakage_allowed"] = 1.0
            for name, value in row.metrics.items():
                flat |= {f"{at}/{name}": value.value, f"{at}/{name}_low": value.low, f"{at}/{name}_high": value.high}
            if row.difference is not None:
                flat |= {f"{at}/difference": row.difference.value, f"{at}/difference_low": row.difference.low}
                flat |= {f"{at}/difference_high": row.difference.high}
    return flat
