"""The headline numbers of each task, for the overview of the working folder: one file, merged with what earlier commands left."""

import json
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from encoders.gallery.bench_entries import HEADLINES_FILE
from encoders.gallery.entries import UNREADABLE
from encoders.runtime.files import write_json
from encoders.runtime.paths import records_dir
from transfer.tables.rows import Row, Section


def save_headlines(sections: Sequence[Section]) -> None:
    """Enters AUROC, interval and verdict of every encoder and protocol of these sections, at most labels.

    Rows of the same task, encoder and protocol are replaced, others are kept. What cannot be written is left out: the tables hold all."""
    path = records_dir() / HEADLINES_FILE
    tasks: dict[str, Any] = {}
    with suppress(*UNREADABLE):
        tasks = dict(json.loads(path.read_text())["tasks"])
    for section in sections:
        new = [describe_headline(row) for row in best_labeled_rows(section)]
        new = [row for row in new if row["auroc"] is not None]
        if not new:
            continue
        replaced = {(row["encoder"], row["protocol"]) for row in new}
        with suppress(*UNREADABLE):
            kept = [row for row in tasks.get(section.task, {}).get("rows", []) if (row["encoder"], row["protocol"]) not in replaced]
            tasks[section.task] = {"time": time.time(), "rows": [*kept, *new]}
    with suppress(*UNREADABLE):
        write_json(path, {"tasks": tasks})


def best_labeled_rows(section: Section) -> list[Row]:
    """The row of each encoder with the largest label fraction, and of few-shot rows the one with most shots."""
    best: dict[str, Row] = {}
    for row in section.rows:
        before = best.get(row.encoder)
        if before is None or (row.fraction, row.shots or 0) > (before.fraction, before.shots or 0):
            best[row.encoder] = row
    return list(best.values())


def describe_headline(row: Row) -> dict[str, Any]:
    """One row as plain values."""
    value, low, high = row.metrics["auroc"].ends
    verdict = row.difference.reported_verdict if row.difference is not None else ""  # after correction for all comparisons
    ends = {name: None if math.isnan(end) else round(end, 4) for name, end in (("auroc", value), ("low", low), ("high", high))}
    return {"encoder": row.encoder, "role": row.role, "protocol": row.protocol, **ends, "verdict": verdict}
