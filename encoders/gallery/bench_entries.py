"""Submitted benchmarks, and the results of each task, as entries of the overview."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from encoders.gallery.entries import UNREADABLE, EntryGrade, GalleryEntry, Link, describe_error, modified_at, relative_link

HEADLINES_FILE = ".headlines.json"  # in the folder of records; hidden, so that it is not taken for a record
SHOWN_ENCODERS = 6  # links to encoders in the row of a task; the details list all


def read_bench_entry(folder: Path, home: Path) -> GalleryEntry:
    """The entry of the folder of a submitted benchmark. Raises what damaged files raise."""
    info = json.loads((folder / "bench.json").read_text())
    codes = [path.read_text().strip() for path in (folder / "status").glob("[0-9]*")] if (folder / "status").is_dir() else []
    total, done = int(info.get("elements", 0)), codes.count("0")
    failed = len([code for code in codes if code and code != "0"])
    status, grade = describe_bench_state(total, done, failed)
    tasks = [str(task) for task in info.get("tasks", [])]
    links = [*relative_link("report", folder / "report.html", home), *relative_link("table", folder / "table.md", home)]
    links += [Link(f"task {task}", ("task", task)) for task in tasks]
    changed = max(modified_at(folder / name) for name in ("bench.json", "table.md", "report.html"))
    return GalleryEntry(
        "bench", folder.name, status, grade, changed, {"cells done": f"{done} of {total}", "tasks": ", ".join(tasks)}, links
    )


def describe_bench_state(total: int, done: int, failed: int) -> tuple[str, EntryGrade]:
    """The state of an array by the exit statuses of its elements."""
    if failed:
        return f"{failed} of {total} elements failed", "bad"
    return ("done", "good") if done >= total else (f"{total - done} of {total} elements not ended", "open")


def read_task_entries(records: Path, home: Path) -> Iterator[GalleryEntry]:
    """One entry per task with results, from the numbers that the last tables of each task left."""
    try:
        tasks = read_headlines(records)
    except UNREADABLE as error:
        yield GalleryEntry("task", HEADLINES_FILE, f"unreadable: {describe_error(error, records)}", "bad")
        return
    for name, task in tasks:
        try:
            yield _read_task_entry(name, task, home)
        except UNREADABLE as error:
            yield GalleryEntry("task", name, f"unreadable: {describe_error(error, records)}", "bad")


def read_headlines(records: Path) -> list[tuple[str, dict[str, Any]]]:
    """(task, its headline numbers) of the tasks whose records exist, by name; [] without the file. Raises what a damaged file raises."""
    try:
        content = json.loads((records / HEADLINES_FILE).read_text())
    except FileNotFoundError:
        return []
    return sorted((name, task) for name, task in content["tasks"].items() if (records / name).is_dir())


def _read_task_entry(name: str, task: dict[str, Any], home: Path) -> GalleryEntry:
    rows = sorted(task["rows"], key=lambda row: -float(row["auroc"]))
    encoders = list(dict.fromkeys(str(row["encoder"]) for row in rows if row.get("role") == "encoder"))
    protocols = list(dict.fromkeys(str(row["protocol"]) for row in rows))
    best = rows[0] if rows else {}
    better = [row for row in rows if row.get("verdict") == "better"]
    entry = GalleryEntry(
        "task",
        name,
        f"better than the baseline: {', '.join(dict.fromkeys(str(row['encoder']) for row in better))}" if better else "nothing better",
        "good" if better else "open",
        float(task.get("time", 0.0)),
        numbers={
            "best AUROC": format_auroc(best) if best else "",
            "by": f"{best['encoder']}, {best['protocol']}" if best else "",
            "encoders": str(len(encoders)),
            "protocols": ", ".join(protocols),
        },
        links=[*relative_link("report", home / "report.html", home), *(Link(e, ("encoder", e)) for e in encoders[:SHOWN_ENCODERS])],
        details=[(f"{row['encoder']}, {row['protocol']}", f"{format_auroc(row)} {row.get('verdict') or ''}".strip()) for row in rows],
    )
    return entry


def format_auroc(row: dict[str, Any]) -> str:
    """`.948 [.933, .959]`; without an interval if none is defined."""
    low, high = row.get("low"), row.get("high")
    ends = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{row['auroc']:.3f}{ends}".replace("0.", ".")
