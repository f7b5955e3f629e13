"""From records to the sections of a table.

Paired differences are computed within a section only. Records of several folds or draws form one row: their mean with its interval over
test patients and draws.

Shapes: M test images, C target columns.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial

import numpy as np

from transfer.records.cached_results import cached_result
from transfer.records.record import Record
from transfer.stats import Interval
from transfer.stats.ap_components import measure_average_precisions
from transfer.stats.balanced_accuracy_components import measure_balanced_accuracies
from transfer.stats.factors import Factor, draw_of, level_std, seed_of
from transfer.stats.parts import Measure, measure_areas, measure_part
from transfer.tables.comparisons import compare_options, compare_section, describe_below_chance, judge_sections
from transfer.tables.floor import describe_high_floor
from transfer.tables.row_estimates import class_counts, judged_labels, record_position, record_value, row_interval
from transfer.tables.rows import TABLE_METRICS, Row, Section, count_tested, task_name
from transfer.tasks.split import PARTS

ROLE_ORDER = {"diagnosis": 1, "imagenet": 2, "random": 3, "floor": 4}  # of the rows of a table, after encoders


def build_sections(
    records: Sequence[Record],
    baseline: str | Sequence[str] | None = None,
    margin: float | None = None,
) -> list[Section]:
    """The sections of these records, sorted by task and protocol, with their comparisons and corrected verdicts.

    baseline: the only reference, or references, of all differences; None: by the rules of `comparisons`.
    margin: a difference of AUROC that does not matter; adds the verdicts "equivalent" and "not inferior".
    Rows about a recipe with several pretraining seeds are added by `seed_rows.add_seed_rows`."""
    by_section: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in (r for r in records if r.identity.shift is None):  # scores on shifted images belong to `shift_curves`
        i = record.identity
        by_section[i.task, i.labels, i.store, i.partition, i.protocol, i.protocol_hash, i.precision].append(record)
    sections = [_build_section(by_section[key]) for key in sorted(by_section)]
    for section in sections:
        compare_section(section, compare_options(baseline, margin))
    judge_sections(sections)
    return sections


def _build_section(records: list[Record]) -> Section:
    i = records[0].identity
    section = Section(task_name(i), i.labels, i.partition, i.protocol, i.protocol_hash, store=i.store, precision=i.precision)
    groups: dict[tuple[int, str, tuple[str, str], tuple[int, float]], list[Record]] = defaultdict(list)
    for record in records:
        if record.meta.status == "failed":
            section.failed.append(record)
        else:
            i = record.identity
            # A number of patients is a different share in every fold, but forms one row.
            share = (0, float(i.patients)) if i.patients is not None else (1, i.fraction)
            weights = i.encoder_sha256, i.card
            groups[ROLE_ORDER.get(record.meta.role, 0), i.encoder, weights, share].append(record)
    rows = [sorted(groups[key], key=lambda r: (r.identity.fold, r.identity.draw, r.identity.seed)) for key in sorted(groups)]
    if not rows:
        return section
    most_labels = max(rows, key=lambda same: same[0].identity.fraction)  # test part and floor are read from these
    section.judged, section.rare = judged_labels(most_labels)
    for same in rows:
        section.rows += build_shot_rows(same, section.judged) or [build_row(same, section.judged)]
    section.rows.sort(key=lambda row: row.labels_order)  # encoders keep their order within a number of labels
    _disambiguate_names(section.rows)
    for row in section.rows:
        warnings = describe_below_chance(row, section.protocol) + describe_high_floor(row, section.protocol)
        row.notes += [note for note in warnings if note not in row.notes]
    floors = [majority_metrics(r, section.judged) for r in {r.identity.fold: r for r in most_labels}.values()]
    section.majority = {name: float(np.mean([floor[name] for floor in floors])) for name in floors[0]}
    section.counts = {p: most_labels[0].meta.counts[p] for p in PARTS} if len(floors) == 1 else {"test": count_tested(most_labels)}
    section.splits = tuple(dict.fromkeys(r.identity.split for r in records if r.meta.status == "ok"))
    return section


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


def build_row(records: list[Record], judged: Sequence[int] | None) -> Row:
    """The row of these records. judged: the labels of its metrics; None: all."""
    row = _start_row(records)
    row.metrics = {metric: row_interval(records, metric, judged) for metric in TABLE_METRICS}
    if judged is not None:
        row.all_labels = {metric: float(np.nanmean([record_value(r, metric) for r in records])) for metric in TABLE_METRICS}
    row.draw_std, row.seed_std = auroc_std(records, draw_of, judged), auroc_std(records, seed_of, judged)
    row.episodes_note = describe_episodes(records) if records[0].meta.episodes else ""
    return _add_notes(row)


def build_shot_rows(records: list[Record], judged: Sequence[int] | None) -> list[Row]:
    """One row per number of shots that all records have, with the mean AUROC over episodes; [] for records without single episodes."""
    rows = []
    for shots in sorted(set.intersection(*(set(map(int, r.meta.episode_supports)) for r in records))):
        row, metric = _start_row(records), f"auroc@{shots}"
        row.shots = shots
        row.metrics = {name: Interval(np.nan, np.nan, np.nan, "not defined for single episodes") for name in TABLE_METRICS}
        row.metrics["auroc"] = row_interval(records, metric, judged)
        row.all_labels = {} if judged is None else {"auroc": float(np.nanmean([record_value(r, metric) for r in records]))}
        rows.append(_add_notes(row))
    return rows


def _start_row(records: list[Record]) -> Row:
    i, first = records[0].identity, records[0].meta
    share = float(np.mean([r.identity.fraction for r in records]))
    return Row(i.encoder, first.role, i.protocol, i.fraction if i.patients is None else share, {}, records)


def _add_notes(row: Row) -> Row:
    """The row with the warnings of its intervals."""
    row.notes = list(dict.fromkeys(note for note in (v.note for v in row.metrics.values()) if note))
    excluded = int((class_counts(row.records[:1]) == 0).any(axis=1).sum())
    if excluded:
        classes = len(row.records[0].meta.classes)
        row.notes.append(f"{excluded} of {classes} labels have only one class in the test part and are excluded")
    return row


def auroc_std(records: Sequence[Record], factor: Factor, judged: Sequence[int] | None) -> float:
    """Standard deviation of the AUROC over the levels of one factor, averaged over all others; NaN for a single level."""
    return level_std({record_position(r): record_value(r, "auroc", judged) for r in records}, factor)


def majority_metrics(record: Record, judged: Sequence[int] | None = None) -> dict[str, float]:
    """The metrics of always predicting the most frequent class: the floor of every metric. judged: labels of the means; None: all."""
    return cached_result("majority", [record], (judged,), dict[str, float], lambda: _measure_majority(record, judged))


def _measure_majority(record: Record, judged: Sequence[int] | None) -> dict[str, float]:
    y, _, patient = record.part("test")
    constant = np.broadcast_to(np.nanmean(record.arrays["val_y"], axis=0), y.shape)
    decide = partial(measure_balanced_accuracies, kind=record.meta.kind)
    measures: dict[str, Measure] = {"auroc": measure_areas, "ap": measure_average_precisions, "balanced_accuracy": decide}
    return {name: measure_part(y, constant, patient, measure).value(judged) for name, measure in measures.items()}


def describe_episodes(records: list[Record]) -> str:
    """Mean and standard deviation of the AUROC of single few-shot episodes, by number of shots."""
    tables = [r.meta.episodes for r in records]
    shots = sorted(set.intersection(*(set(t) for t in tables)), key=int)
    mean = {s: float(np.mean([t[s]["mean"] for t in tables])) for s in shots}
    sd = {s: float(np.sqrt(np.mean([t[s]["sd"] ** 2 for t in tables]))) for s in shots}
    return "AUROC of single episodes, mean (sd): " + ", ".join(f"{s}-shot {mean[s]:.3f} ({sd[s]:.3f})" for s in shots)
