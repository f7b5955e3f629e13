"""From records to the rows of a table.

A section holds the rows that may be compared: same task, targets, split, protocol and protocol hash. Paired differences are computed
within a section only. Records of several folds or draws form one row: their mean with its interval over test patients, and separately the
standard deviation over draws.

Shapes: M test images, C target columns, B resamples.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.errors import InputError
from transfer.metrics import auroc, average_precision, balanced_accuracy, choose_thresholds, macro
from transfer.records.record import Identity, Record
from transfer.stats import Difference, Interval, bootstrap_values, pooled_difference, pooled_interval
from transfer.stats.auroc_intervals import ScoredRows, count_fewest_over_folds, few_patients_note_over_folds
from transfer.stats.bootstrap import Metric, mean_over_labels, percentile_interval
from transfer.stats.interval import bound_perfect_interval
from transfer.tasks.split import PARTS

TABLE_RESAMPLES = 1000
COUNTED_COLUMNS = {"images": "key", "patients": "patient"}
TABLE_METRICS = ("auroc", "ap", "balanced_accuracy")


@dataclass
class Row:
    """One encoder with one protocol at one label fraction."""

    encoder: str
    role: str
    protocol: str
    fraction: float
    metrics: dict[str, Interval]
    records: list[Record]
    difference: Difference | None = None
    reference: str = ""  # the encoder that `difference` is to
    draw_std: float = float("nan")  # standard deviation of the AUROC over draws of the labeled patients
    seed_std: float = float("nan")  # the same over seeds: of pretraining if `seeds` is not empty, else of the protocol
    seeds: list[str] = field(default_factory=list)  # the encoders that a row about a recipe averages
    notes: list[str] = field(default_factory=list)  # warnings below the table
    episodes_note: str = ""  # few-shot: AUROC of single episodes; printed below the table, not a warning


@dataclass
class Section:
    """Rows that may be compared with each other."""

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


def build_sections(records: Sequence[Record], baseline: str | None = None, resamples: int = TABLE_RESAMPLES) -> list[Section]:
    """The sections of these records, sorted by task and protocol.

    baseline: the reference encoder of all differences; None: ImageNet weights of the same network, else its random weights.
    Rows about a recipe with several pretraining seeds are added by `seed_rows.add_seed_rows`."""
    by_section: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in (r for r in records if r.identity.shift is None):  # scores on shifted images belong to `shift_curves`
        i = record.identity
        by_section[i.task, i.labels, i.store, i.partition, i.protocol, i.protocol_hash].append(record)
    return [_build_section(by_section[key], baseline, resamples) for key in sorted(by_section)]


def task_name(i: Identity) -> str:
    """The tested task; for external validation also the task that was selected on."""
    return i.task if i.selected_on is None else f"{i.task} from {i.selected_on.task}"


def _build_section(records: list[Record], baseline: str | None, resamples: int) -> Section:
    i = records[0].identity
    section = Section(task_name(i), i.labels, i.partition, i.protocol, i.protocol_hash, store=i.store)
    groups: dict[tuple[bool, bool, str, tuple[str, str], tuple[int, float]], list[Record]] = defaultdict(list)
    for record in records:
        if record.meta.status == "failed":
            section.failed.append(record)
        else:
            i = record.identity
            # A number of patients is a different share in every fold, but forms one row.
            share = (0, float(i.patients)) if i.patients is not None else (1, i.fraction)
            weights = i.encoder_sha256, i.card
            groups[record.meta.role == "random", record.meta.role == "imagenet", i.encoder, weights, share].append(record)
    for _, same in sorted(groups.items(), key=lambda item: item[0]):
        section.rows.append(_build_row(sorted(same, key=lambda r: (r.identity.fold, r.identity.draw, r.identity.seed)), resamples))
    _disambiguate_names(section.rows)
    for row in section.rows:
        reference = find_reference(row, section.rows, baseline)
        if reference is not None:
            row.reference, row.difference = reference.encoder, compare_rows(row, reference)
            sizes = [r.records[0].meta.size for r in (row, reference)]
            if row.role == "encoder" and sizes[0] != sizes[1] and all(sizes):
                row.notes.append(
                    f"{row.encoder} has input size {sizes[0]} px, {reference.encoder} {sizes[1]} px: "
                    "the difference may come from the weights or from the size"
                )
    most_labels = max(section.rows, key=lambda row: row.fraction).records if section.rows else []  # test part and floor are read from these
    good = [r for r in records if r.meta.status == "ok"]
    if good:
        floors = [majority_metrics(r) for r in {r.identity.fold: r for r in most_labels}.values()]
        section.majority = {name: float(np.mean([floor[name] for floor in floors])) for name in floors[0]}
        section.counts = {p: most_labels[0].meta.counts[p] for p in PARTS} if len(floors) == 1 else {"test": count_tested(most_labels)}
        section.splits = tuple(dict.fromkeys(r.identity.split for r in good))
    return section


def count_tested(records: Sequence[Record]) -> dict[str, int]:
    """Number of test images and test patients of all these records, each counted once."""
    return {
        name: len(set(np.concatenate([r.arrays[f"test_{c}"].astype(str) for r in records]).tolist())) for name, c in COUNTED_COLUMNS.items()
    }


def _disambiguate_names(rows: Sequence[Row]) -> None:
    """Renames rows with equal names but different weights (a run that continued, an encoder trained again) and notes it."""
    versions: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in rows:
        versions[row.encoder].add((row.records[0].identity.encoder_sha256, row.records[0].identity.card))
    for row in rows:
        several = versions[name := row.encoder]
        if len(several) > 1:
            i = row.records[0].identity
            row.encoder = f"{name} ({(i.encoder_sha256 if len({sha for sha, _ in several}) > 1 else i.card)[:8]})"
            row.notes.append(f"the name {name} was used for {len(several)} different encoders; each has its own row")


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
    row.episodes_note = describe_episodes(records) if first.episodes else ""
    excluded = macro(auroc(*records[0].part("test")[:2]))[1]
    if excluded:
        row.notes.append(f"{excluded} of {len(first.classes)} labels have only one class in the test part and are excluded")
    row.draw_std, row.seed_std = _auroc_std(records, lambda i: i.draw), _auroc_std(records, lambda i: i.seed)
    return row


def _auroc_std(records: Sequence[Record], level: Callable[[Identity], int]) -> float:
    """Standard deviation of the AUROC over the levels of one factor (draw or seed), averaged over all others; NaN for a single level."""
    values = defaultdict(list)
    for record in records:
        values[level(record.identity)].append(macro(auroc(*record.part("test")[:2]))[0])
    return float(np.std([np.mean(v) for v in values.values()], ddof=1)) if len(values) > 1 else float("nan")


def pooled_auroc(records: Sequence[Record], column: int | None = None) -> Interval:
    """The mean AUROC over labels, folds and draws; column: of one label only."""
    return pooled_interval(group_by_fold(records, column))


def group_by_fold(records: Sequence[Record], column: int | None = None) -> list[list[ScoredRows]]:
    """The test parts by fold, as `pooled_interval` takes them; column: of one label only."""
    folds: dict[int, list[ScoredRows]] = {}
    for record in records:
        y, s, patient = record.part("test")
        kept = slice(None) if column is None else slice(column, column + 1)
        folds.setdefault(record.identity.fold, []).append((y[:, kept], s[:, kept], patient))
    return list(folds.values())


def bootstrap_interval(records: list[Record], metric: Callable[[Record], Metric], resamples: int) -> Interval:
    """The mean over records of a metric, with its interval over test patients. `metric` may depend on the record, e.g. on its threshold."""
    each = [_resample_metric(record, metric(record), resamples) for record in records]
    means = [(np.array([macro(full)[0]]), mean_over_labels(values, full)[:, None]) for full, values in each]
    return _mean_intervals(records, means, resamples)[0]


def bootstrap_intervals(records: list[Record], metric: Callable[[Record], Metric], resamples: int) -> list[Interval]:
    """As `bootstrap_interval`, one interval per column of the metric."""
    return _mean_intervals(records, [_resample_metric(record, metric(record), resamples) for record in records], resamples)


def _mean_intervals(records: list[Record], per_record: list[tuple[FloatArray, FloatArray]], resamples: int) -> list[Interval]:
    """The C intervals of the mean over records. per_record: values (C,) and resampled values (B, C)."""
    tests = group_by_fold(records)
    full = np.mean([value for value, _ in per_record], axis=0)
    total = sum(draws / len(records) for _, draws in per_record)
    method, note, fewest = f"patient bootstrap, {resamples} resamples", few_patients_note_over_folds(tests), count_fewest_over_folds(tests)
    ends = [
        bound_perfect_interval(value, *percentile_interval(draws, 0.95), fewest, 0.95)
        for value, draws in zip(full.tolist(), np.transpose(total), strict=True)
    ]
    return [Interval(value, *pair, method, 0.95, note) for value, pair in zip(full.tolist(), ends, strict=True)]


def _resample_metric(record: Record, metric: Metric, resamples: int) -> tuple[FloatArray, FloatArray]:
    """The metric (C,) on a record's test part, and (B, C) on resamples of its patients; draws of one fold share their resamples."""
    y, s, patient = record.part("test")
    full = np.asarray(metric(y, s), dtype=np.float64).reshape(-1)
    return full, bootstrap_values(metric, y, s, patient, resamples, seed=record.identity.fold)


def youden_thresholds(record: Record) -> FloatArray:
    """(C,) the thresholds with the largest Youden index on the record's validation part."""
    return choose_thresholds(*record.part("val")[:2])


def thresholded_balanced_accuracy(record: Record) -> Metric:
    """Balanced accuracy at the record's Youden thresholds; a multi-class task decides by argmax."""
    return partial(balanced_accuracy, kind=record.meta.kind, threshold=youden_thresholds(record))


def describe_episodes(records: list[Record]) -> str:
    """Mean and standard deviation of the AUROC of single few-shot episodes, by number of shots."""
    tables = [r.meta.episodes for r in records]
    shots = sorted(set.intersection(*(set(t) for t in tables)), key=int)
    mean = {s: float(np.mean([t[s]["mean"] for t in tables])) for s in shots}
    sd = {s: float(np.sqrt(np.mean([t[s]["sd"] ** 2 for t in tables]))) for s in shots}
    return "AUROC of single episodes, mean (sd): " + ", ".join(f"{s}-shot {mean[s]:.3f} ({sd[s]:.3f})" for s in shots)


def find_reference(row: Row, rows: Sequence[Row], baseline: str | None) -> Row | None:
    """The row that `row` is compared to: the baseline; without one, ImageNet weights of the same network, else its random weights."""
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
    """AUROC of `a` minus AUROC of `b` on the same test patients; None if `b` lacks a fold, draw or seed of `a`."""
    both = pair_test_parts(a, b)
    return None if both is None else pooled_difference(*both)


def pair_test_parts(a: Row, b: Row) -> tuple[list[list[ScoredRows]], list[list[ScoredRows]]] | None:
    """The test parts of both rows by fold, on the same images in the same order; None if `b` lacks a fold, draw or seed of `a`."""

    def position(record: Record) -> tuple[int, int, int]:
        return record.identity.fold, record.identity.draw, record.identity.seed

    theirs = {position(record): record for record in b.records}
    if any(position(record) not in theirs for record in a.records):
        return None
    ours_by_fold: dict[int, list[ScoredRows]] = {}
    theirs_by_fold: dict[int, list[ScoredRows]] = {}
    for record in a.records:
        y, s, t, patient = _align_records(record, theirs[position(record)])
        ours_by_fold.setdefault(record.identity.fold, []).append((y, s, patient))
        theirs_by_fold.setdefault(record.identity.fold, []).append((y, t, patient))
    return list(ours_by_fold.values()), list(theirs_by_fold.values())


def _align_records(a: Record, b: Record) -> tuple[Array, Array, Array, Array]:
    """Labels, both scores and patients on the same test images in the same order."""
    i, j = np.argsort(a.arrays["test_key"]), np.argsort(b.arrays["test_key"])
    if not np.array_equal(a.arrays["test_key"][i], b.arrays["test_key"][j]):
        raise InputError(
            f"records of {a.identity.encoder} and {b.identity.encoder} on {a.identity.task} have different test images; "
            "run `transfer bench` with --again"
        )
    return a.arrays["test_y"][i], a.arrays["test_scores"][i], b.arrays["test_scores"][j], a.arrays["test_patient"][i]


def majority_metrics(record: Record) -> dict[str, float]:
    """The metrics of always predicting the most frequent class: the floor of every metric."""
    y = record.arrays["test_y"]
    constant = np.broadcast_to(np.nanmean(record.arrays["val_y"], axis=0), y.shape)
    decide = balanced_accuracy(y, constant, kind=record.meta.kind)
    return {"auroc": macro(auroc(y, constant))[0], "ap": macro(average_precision(y, constant))[0], "balanced_accuracy": macro(decide)[0]}
