"""What entries say of each other: an encoder shows its results on tasks, and that its run collapsed."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from statistics import fmean
from typing import Any

from encoders.gallery.bench_entries import format_auroc
from encoders.gallery.entries import UNREADABLE, GalleryEntry, Link


def relate_entries(entries: Sequence[GalleryEntry], headlines: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Completes the entries of encoders in place.  headlines: (task, its headline numbers)."""
    runs = {entry.name: entry for entry in entries if entry.kind == "run"}
    for entry in entries:
        if entry.kind == "encoder":
            _add_state_of_run(entry, runs)
            with suppress(*UNREADABLE):
                _add_results(entry, headlines)


def _add_state_of_run(encoder: GalleryEntry, runs: Mapping[str, GalleryEntry]) -> None:
    """An encoder whose run ended badly is not simply `in the zoo`."""
    for link in encoder.links:
        run = runs.get(link.target[1]) if isinstance(link.target, tuple) and link.target[0] == "run" else None
        if run is not None and run.grade == "bad":
            encoder.status, encoder.grade = f"{encoder.status}; its run {run.status}", "bad"


def _add_results(encoder: GalleryEntry, headlines: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """The mean over tasks of the best AUROC by any protocol, and each of them in the details."""
    best = {}
    for task, results in headlines:
        own = [row for row in results["rows"] if row["encoder"] == encoder.name]
        if own:
            best[task] = max(own, key=lambda row: float(row["auroc"]))
    for task, row in best.items():
        text = f"{format_auroc(row)} by {row['protocol']} {row.get('verdict') or ''}".strip()
        encoder.details.append((f"AUROC on {task}", text))
        encoder.links.append(Link(f"task {task}", ("task", task)))
    if best:
        mean = fmean(float(row["auroc"]) for row in best.values())
        encoder.numbers["AUROC"] = f"{mean:.3f} ({len(best)} task{'s' if len(best) > 1 else ''})"
