"""The metrics of a row as estimates: their contributions of patients, from the records.

A record's components are computed once and kept as long as the record; what is computed from them is kept beside the record.

Shapes: M test images, C target columns.
"""

from collections.abc import Sequence
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np

from encoders.runtime.arrays import Array, FloatArray, IntArray
from transfer.metrics import choose_thresholds, macro
from transfer.records.cached_results import cached_result
from transfer.records.episodes import read_episodes
from transfer.records.record import Record
from transfer.stats import MIN_PATIENTS, Interval, patients_per_class
from transfer.stats.ap_components import measure_average_precisions
from transfer.stats.balanced_accuracy_components import measure_balanced_accuracies
from transfer.stats.estimate import Estimate, estimate_interval
from transfer.stats.factors import Position
from transfer.stats.parts import Measure, TestPart, measure_areas, measure_part
from transfer.stats.permutation import ScoredRows
from transfer.stats.placement_components import measure_placements
from transfer.tables.rows import LabelCount, Row

METHODS = {"auroc": "clustered DeLong", "ap": "patient jackknife", "balanced_accuracy": "recalls by patient"}

_counts: WeakKeyDictionary[Record, dict[tuple[Record, ...], IntArray]] = WeakKeyDictionary()
_parts: WeakKeyDictionary[Record, dict[str, TestPart]] = WeakKeyDictionary()


def record_position(record: Record, checkpoint: int = 0) -> Position:
    """Where the test part of a record stands."""
    i = record.identity
    return Position(i.fold, i.draw, i.seed, checkpoint)


def record_part(record: Record, metric: str) -> TestPart:
    """The components of a metric on the test part of a record; `auroc` at a number of shots is `auroc@8`."""
    known = _parts.setdefault(record, {})
    if metric not in known:
        y, s, patient = record.part("test")
        name, _, shots = metric.partition("@")
        if shots:
            known[metric] = measure_part(y, read_episodes(record)[int(shots)].placement, patient, measure_placements)
        else:
            known[metric] = measure_part(y, s, patient, measure_of(record, name))
    return known[metric]


def measure_of(record: Record, metric: str) -> Measure:
    """The measure of a metric; balanced accuracy is at the record's own validation thresholds."""
    if metric == "balanced_accuracy":
        return partial(measure_balanced_accuracies, kind=record.meta.kind, threshold=youden_thresholds(record))
    return {"auroc": measure_areas, "ap": measure_average_precisions}[metric]


def record_value(record: Record, metric: str, columns: Sequence[int] | None = None) -> float:
    """A metric on the test part of a record, the mean over labels. columns: of these labels; None: all."""
    return cached_result("value", [record], (metric, columns), float, lambda: record_part(record, metric).value(columns))


def row_estimate(records: Sequence[Record], metric: str, columns: Sequence[int] | None = None) -> Estimate:
    """A metric of one row. records: its folds, draws, seeds and pretraining seeds.  columns: labels of the mean; None: all."""
    encoders = list(dict.fromkeys(r.identity.encoder_sha256 for r in records))
    parts = {record_position(r, encoders.index(r.identity.encoder_sha256)): record_part(r, metric) for r in records}
    sampled = any(r.identity.fraction < 1 or r.identity.patients is not None for r in records)
    name, _, shots = metric.partition("@")
    episodes, digest = mean_episodes(records, int(shots), columns) if shots else (np.empty(0), "")
    return Estimate(parts, smaller_class_patients(records, columns), columns, sampled, METHODS[name], episodes, digest)


def mean_episodes(records: Sequence[Record], shots: int, columns: Sequence[int] | None) -> tuple[FloatArray, str]:
    """(E,) the AUROC of every episode, averaged over the records, and the digest of all their support sets."""
    each = [read_episodes(r)[shots] for r in records]
    values = [macro(e.label_auroc if columns is None else e.label_auroc[:, list(columns)])[0] for e in each]
    fewest = min(map(len, values))
    return np.mean([v[:fewest] for v in values], axis=0), "+".join(dict.fromkeys(e.supports for e in each))


def row_interval(records: Sequence[Record], metric: str = "auroc", columns: Sequence[int] | None = None) -> Interval:
    """A metric of one row with its interval."""
    return cached_result(
        "interval", records, (metric, columns), Interval, lambda: estimate_interval(row_estimate(records, metric, columns))
    )


def test_labels(records: Sequence[Record]) -> tuple[Array, Array]:
    """Labels (M, C) and patients (M,) of all folds; draws of one fold are counted once."""
    once = {r.identity.fold: r for r in records}.values()
    patients = np.concatenate([r.arrays["test_patient"].astype(str) for r in once])
    return np.concatenate([r.arrays["test_y"] for r in once]), patients


test_labels.__test__ = False  # type: ignore[attr-defined]  # not a test


def class_counts(records: Sequence[Record]) -> IntArray:
    """(C, 2) test patients without and with each label, over all folds; kept as long as the first record of each fold."""
    once = list({r.identity.fold: r for r in records}.values())
    known = _counts.setdefault(once[0], {})
    others = tuple(once[1:])
    if others not in known:
        known[others] = cached_result("class counts", once, (), np.ndarray, lambda: patients_per_class(*test_labels(once)))
    return known[others]


def smaller_class_patients(records: Sequence[Record], columns: Sequence[int] | None = None) -> int:
    """The smallest number of test patients in a class, over the labels with both classes; 0 if there is none."""
    counts = class_counts(records)
    counts = counts if columns is None else counts[list(columns)]
    defined = counts[(counts > 0).all(axis=1)]
    return int(defined.min()) if len(defined) else 0


def judged_labels(records: Sequence[Record]) -> tuple[tuple[int, ...] | None, tuple[LabelCount, ...]]:
    """The labels with at least MIN_PATIENTS test patients in both classes (None: all, or none), and the counts of the others.

    Without any such label nothing can be judged, and all labels stay."""
    counts = class_counts(records)
    enough = np.flatnonzero((counts >= MIN_PATIENTS).all(axis=1))
    if len(enough) in (0, len(counts)):
        return None, ()
    classes = records[0].meta.classes
    rare = tuple(LabelCount(classes[c], int(counts[c, 1]), int(counts[c, 0])) for c in range(len(counts)) if c not in set(enough.tolist()))
    return tuple(enough.tolist()), rare


def scored_folds(records: Sequence[Record], columns: Sequence[int] | None = None) -> list[list[ScoredRows]]:
    """The test parts by fold, in the order of their images, as `pooled_interval` takes them."""
    folds: dict[int, list[ScoredRows]] = {}
    kept = slice(None) if columns is None else list(columns)
    for record in records:
        y, s, patient = record.part("test")
        order = np.argsort(record.arrays["test_key"])
        folds.setdefault(record.identity.fold, []).append((y[order][:, kept], s[order][:, kept], patient[order]))
    return list(folds.values())


def youden_thresholds(record: Record) -> Array:
    """(C,) the thresholds with the largest Youden index on the record's validation part."""
    return cached_result("youden", [record], (), np.ndarray, lambda: choose_thresholds(*record.part("val")[:2]))


def is_same_size(a: Row, b: Row) -> bool:
    """Whether two encoders have the same input size, or one is unknown."""
    sizes = [row.records[0].meta.size for row in (a, b)]
    return sizes[0] == sizes[1] or not all(sizes)
