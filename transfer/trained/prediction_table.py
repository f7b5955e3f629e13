"""The CSV of predictions: one row per image, those that could not be read included, written while the images are read.

Shapes: B images of a batch, C labels or classes.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from encoders.ingest.quarantine import quarantine_path
from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.errors import InputError
from encoders.runtime.escape import format_csv
from encoders.runtime.files import atomic_write
from encoders.runtime.local_notes import write_private
from encoders.zoo.head_card import Head
from transfer.metrics.entropy_parts import divide_entropy, relative_entropy
from transfer.trained.calibrate import decide_labels
from transfer.trained.predict import DistanceRequest, PredictedBatch
from transfer.trained.prediction_sets import SetPredictor

DISTANT = 99.0  # percentile from which an image is counted as unlike those of the task
DIGITS = 8  # of a number in the table: more than float32 has


@dataclass
class PredictionSummary:
    """What was written. decisions: class -> how many images.  problems: (key, reason).  trained_on: images that trained the model."""

    images: int = 0
    decisions: Counter[str] = field(default_factory=Counter)
    problems: list[tuple[str, str]] = field(default_factory=list)
    trained_on: int = 0
    set_sizes: Counter[int] = field(default_factory=Counter)
    distant: int = 0


@dataclass(frozen=True)
class ExtraColumns:
    """Columns besides those of every table. parts: of the uncertainty, of several predictions of an image."""

    parts: bool = False
    sets: SetPredictor | None = None
    distance: DistanceRequest | None = None

    @property
    def names(self) -> list[str]:
        parts = ["entropy", "expected_entropy", "mutual_information"] if self.parts else []
        sets = [f"set_{name}" for name in self.sets.names] if self.sets is not None else []
        return [*parts, *sets, *(["distance", "percentile"] if self.distance is not None else [])]


NO_EXTRAS = ExtraColumns()


def check_out(out: Path, replace: bool) -> None:
    """Raises InputError for a file that exists, unless it may be replaced, and for a folder."""
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; name a file, e.g. {out / 'predictions.csv'}")
    if out.exists() and not replace:
        raise InputError(f"{out} exists; choose another --out, or replace it with --replace")


def write_predictions(batches: Iterable[PredictedBatch], head: Head, out: Path, extras: ExtraColumns = NO_EXTRAS) -> PredictionSummary:
    """Writes the table, and OUT.quarantine.csv for images that could not be read. Only this user may read either (mode 0600).

    The table is written whole or not at all."""
    summary = PredictionSummary()
    with atomic_write(out, private=True) as part, part.open("w", encoding="utf-8", errors="replace") as file:
        file.write(format_csv([list_columns_of(head, extras)]))
        for batch in batches:
            file.write(format_csv(iterate_rows(batch, head, summary, extras)))
    quarantine = quarantine_path(out)
    if summary.problems:
        write_private(quarantine, format_csv([["file", "reason", "traceback"], *((key, why, "") for key, why in summary.problems)]))
    else:
        quarantine.unlink(missing_ok=True)
    return summary


def list_columns_of(head: Head, extras: ExtraColumns = NO_EXTRAS) -> list[str]:
    """The columns of the table."""
    decisions = ["decision"] if head.thresholds is None else [f"decision_{name}" for name in head.classes]
    return ["key", *(f"probability_{name}" for name in head.classes), *decisions, "uncertainty", *extras.names, "problem"]


def iterate_rows(batch: PredictedBatch, head: Head, summary: PredictionSummary, extras: ExtraColumns = NO_EXTRAS) -> Iterator[list[object]]:
    """Yields the rows of a batch, and adds them to the summary."""
    decided = decide_labels(batch.probability, None if head.thresholds is None else np.array(head.thresholds))
    uncertainty = relative_entropy(batch.probability, head.kind)
    more = list_extra_values(batch, head, summary, extras)
    summary.images += len(batch.keys)
    summary.trained_on += batch.trained_on
    empty = [""] * (len(list_columns_of(head, extras)) - 2)
    for i, key in enumerate(batch.keys):
        if why := batch.problems.get(i):
            summary.problems.append((key, why))
            yield [key, *empty, why]
            continue
        names = [name for name, positive in zip(head.classes, decided[i].tolist(), strict=True) if positive]
        summary.decisions.update(names)
        decision: list[object] = [*names] if head.thresholds is None else [int(positive) for positive in decided[i].tolist()]
        numbers = [f"{p:.{DIGITS}g}" for p in batch.probability[i].tolist()]
        yield [key, *numbers, *decision, f"{uncertainty[i]:.{DIGITS}g}", *more[i], ""]


def list_extra_values(batch: PredictedBatch, head: Head, summary: PredictionSummary, extras: ExtraColumns) -> list[list[object]]:
    """The values of `extras.names` of each image of a batch; they are added to the summary where an image was read."""
    columns: list[list[object]] = []
    read = [i for i in range(len(batch.keys)) if i not in batch.problems]
    if not read:
        return [[] for _ in batch.keys]
    if extras.parts:
        assert batch.samples is not None, "several predictions of an image were asked for"
        columns += [[f"{value:.{DIGITS}g}" for value in part.tolist()] for part in divide_entropy(batch.samples, head.kind)]
    if extras.sets is not None:
        inside = np.zeros((len(batch.keys), len(extras.sets.names)), dtype=int)
        inside[read] = extras.sets.predict(batch.probability[read], [batch.sha256[i] for i in read])
        summary.set_sizes.update(inside[read].sum(axis=1).tolist())
        columns += [column.tolist() for column in inside.T]
    if extras.distance is not None and batch.distance is not None:
        percentile = 100 * share_below(batch.distance, extras.distance.validation, extras.distance.patient)
        summary.distant += int((percentile[read] >= DISTANT).sum())
        columns += [[f"{value:.{DIGITS}g}" for value in batch.distance.tolist()], [f"{value:.4g}" for value in percentile.tolist()]]
    return [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in batch.keys]


def share_below(distance: Array, validation: Array, patient: Array) -> FloatArray:
    """(B,) the share of validation images with a smaller distance, each patient counting once.  validation, patient: (V,)."""
    _, code, count = np.unique(patient, return_inverse=True, return_counts=True)
    weight = 1 / (count[code.reshape(-1)] * len(count))
    order = np.argsort(validation)
    reached = np.append(0.0, np.cumsum(weight[order]))
    return np.asarray(np.minimum(reached[np.searchsorted(validation[order], distance, side="left")], 1.0))


def describe_predictions(summary: PredictionSummary, head: Head, out: Path, extras: ExtraColumns = NO_EXTRAS) -> list[str]:
    """Sentences on what was written."""
    counts = ", ".join(f"{name} {summary.decisions[name]:,}" for name in head.classes)
    lines = [f"{summary.images:,} images; decided: {counts}"]
    if summary.trained_on:
        lines.append(
            f"{summary.trained_on:,} of them trained or calibrated the model: their predictions are better than those of new images"
        )
    if extras.sets is not None:
        sizes = ", ".join(f"{n:,} with {size}" for size, n in sorted(summary.set_sizes.items()))
        lines.append(f"{extras.sets.describe()}; images by number of classes in the set: {sizes or 'none'}")
    if extras.distance is not None:
        lines.append(
            f"{summary.distant:,} are farther from the train images than {DISTANT:g} % of the validation patients' images; about "
            f"{(1 - DISTANT / 100) * summary.images:,.0f} are expected of images like those"
        )
    if summary.problems:
        lines.append(
            f"{len(summary.problems):,} could not be read; they have a row without a prediction, and are in {quarantine_path(out).name}"
        )
    return lines
