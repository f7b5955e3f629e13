"""The CSV of predictions: one row per image, those that could not be read included, written while the images are read.

Shapes: B images of a batch, C labels or classes.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from encoders.ingest.quarantine import quarantine_path
from encoders.runtime.errors import InputError
from encoders.runtime.escape import format_csv
from encoders.runtime.files import atomic_write
from encoders.runtime.local_notes import write_private
from encoders.zoo.head_card import Head
from transfer.trained.calibrate import decide_labels, predictive_entropy
from transfer.trained.predict import PredictedBatch

DIGITS = 8  # of a number in the table: more than float32 has


@dataclass
class PredictionSummary:
    """What was written. decisions: class -> how many images.  problems: (key, reason).  trained_on: images that trained the model."""

    images: int = 0
    decisions: Counter[str] = field(default_factory=Counter)
    problems: list[tuple[str, str]] = field(default_factory=list)
    trained_on: int = 0


def check_out(out: Path, replace: bool) -> None:
    """Raises InputError for a file that exists, unless it may be replaced, and for a folder."""
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; name a file, e.g. {out / 'predictions.csv'}")
    if out.exists() and not replace:
        raise InputError(f"{out} exists; choose another --out, or replace it with --replace")


def write_predictions(batches: Iterable[PredictedBatch], head: Head, out: Path) -> PredictionSummary:
    """Writes the table, and OUT.quarantine.csv for images that could not be read. Only this user may read either (mode 0600).

    The table is written whole or not at all."""
    summary = PredictionSummary()
    with atomic_write(out, private=True) as part, part.open("w", encoding="utf-8", errors="replace") as file:
        file.write(format_csv([list_columns_of(head)]))
        for batch in batches:
            file.write(format_csv(iterate_rows(batch, head, summary)))
    quarantine = quarantine_path(out)
    if summary.problems:
        write_private(quarantine, format_csv([["file", "reason", "traceback"], *((key, why, "") for key, why in summary.problems)]))
    else:
        quarantine.unlink(missing_ok=True)
    return summary


def list_columns_of(head: Head) -> list[str]:
    """The columns of the table."""
    decisions = ["decision"] if head.thresholds is None else [f"decision_{name}" for name in head.classes]
    return ["key", *(f"probability_{name}" for name in head.classes), *decisions, "uncertainty", "problem"]


def iterate_rows(batch: PredictedBatch, head: Head, summary: PredictionSummary) -> Iterator[list[object]]:
    """Yields the rows of a batch, and adds them to the summary."""
    decided = decide_labels(batch.probability, None if head.thresholds is None else np.array(head.thresholds))
    uncertainty = predictive_entropy(batch.probability, head.kind)
    summary.images += len(batch.keys)
    summary.trained_on += batch.trained_on
    empty = [""] * (len(list_columns_of(head)) - 2)
    for i, key in enumerate(batch.keys):
        if why := batch.problems.get(i):
            summary.problems.append((key, why))
            yield [key, *empty, why]
            continue
        names = [name for name, positive in zip(head.classes, decided[i].tolist(), strict=True) if positive]
        summary.decisions.update(names)
        decision: list[object] = [*names] if head.thresholds is None else [int(positive) for positive in decided[i].tolist()]
        yield [key, *(f"{p:.{DIGITS}g}" for p in batch.probability[i].tolist()), *decision, f"{uncertainty[i]:.{DIGITS}g}", ""]


def describe_predictions(summary: PredictionSummary, head: Head, out: Path) -> list[str]:
    """Sentences on what was written."""
    counts = ", ".join(f"{name} {summary.decisions[name]:,}" for name in head.classes)
    lines = [f"{summary.images:,} images; decided: {counts}"]
    if summary.trained_on:
        lines.append(
            f"{summary.trained_on:,} of them trained or calibrated the model: their predictions are better than those of new images"
        )
    if summary.problems:
        lines.append(
            f"{len(summary.problems):,} could not be read; they have a row without a prediction, and are in {quarantine_path(out).name}"
        )
    return lines
