"""Pretraining runs as entries of the overview, from run.json, the end of metrics.jsonl and two lines of config.yaml."""

import json
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encoders.gallery.entries import EntryGrade, GalleryEntry, Link, modified_at, relative_link
from encoders.runtime.sealed_json import read_sealed_json

METRICS_TAIL_BYTES = 16_384  # of metrics.jsonl: a few lines
QUIET_S = 3600.0  # without a new line, after which a run that is recorded as running may be dead
METHOD_PATTERN = re.compile(r"^method:\s*(?:\{|\n\s+)name:\s*([\w.-]+)", re.MULTILINE)
ARCH_PATTERN = re.compile(r"^arch:\s*([^\s#]+)", re.MULTILINE)


def read_run_entry(folder: Path, home: Path) -> GalleryEntry:
    """The entry of a run's folder. Without run.json it was submitted and has not started. Raises what damaged files raise."""
    if not (folder / "run.json").is_file():
        return GalleryEntry("run", folder.name, "submitted, not started", "open", modified_at(folder / "jobs.txt"))
    info = read_sealed_json(folder / "run.json", "restore the file from a backup")
    last, knn = read_last_metrics(folder / "metrics.jsonl")
    config = (folder / "config.yaml").read_text() if (folder / "config.yaml").is_file() else ""
    changed = max(modified_at(folder / "run.json"), modified_at(folder / "metrics.jsonl"))
    status, grade = describe_run_state(info, changed, folder.name)
    step = max(int(last.get("step", 0)), int(info.get("step", 0)))
    method, arch = METHOD_PATTERN.search(config), ARCH_PATTERN.search(config)
    entry = GalleryEntry(
        "run",
        folder.name,
        status,
        grade,
        changed,
        numbers={
            "method": method[1] if method else "",
            "network": arch[1] if arch else "",
            "step": f"{step:,} of {int(info['steps']):,}",
            "loss": format_number(last.get("loss")),
            "k-NN": format_number(knn, ".3f"),
            "images/s": format_number(last.get("time/images_per_s"), ".0f"),
        },
        links=[*relative_link("page", folder / "report.html", home), *relative_link("settings", folder / "config.yaml", home)],
        details=[
            ("images", f"{int(info['images']):,}"),
            ("training time", f"{float(info.get('seconds', 0)) / 3600:.2f} h"),
            ("sessions", str(len(info.get("sessions", [])))),
            ("started", str((info.get("sessions") or [{}])[0].get("started", ""))),
        ],
        steady=info["status"] != "running",
    )
    if exported := info.get("encoder"):
        name = Path(str(exported)).name
        entry.links.append(Link(f"encoder {name}", ("encoder", name)))
    return entry


def describe_run_state(info: Mapping[str, Any], changed: float, name: str) -> tuple[str, EntryGrade]:
    """The verdict that the run's last process left in run.json, or else its recorded state.

    changed: when its files were last written, seconds since the epoch."""
    status, verdict = str(info["status"]), info.get("verdict") or {}
    if status == "running":
        quiet = time.time() - changed
        return (f"running? no line for {quiet / 3600:.0f} h", "warned") if quiet > QUIET_S else ("running", "open")
    if verdict.get("status") == status:
        grade = verdict.get("grade")
        return str(verdict["sentence"]), grade if grade in ("good", "warned", "bad", "open") else "open"
    if status == "finished":
        return f"its steps are done; `pretrain report {name}` says whether it collapsed", "open"
    return status, "bad" if status == "diverged" else "warned"


def read_last_metrics(path: Path) -> tuple[dict[str, float], float | None]:
    """The last complete line of metrics.jsonl, and the last k-NN probe near its end; {} and None without them."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - METRICS_TAIL_BYTES, 0))
            tail = file.read().splitlines()
    except OSError:
        return {}, None
    last: dict[str, float] = {}
    for raw in reversed(tail):
        try:
            line = json.loads(raw)
        except ValueError:  # cut at the front, or being written
            continue
        if isinstance(line, dict):
            last = last or line
            if "watch/knn" in line:
                return last, line["watch/knn"]
    return last, None


def format_number(value: object, form: str = ".4g") -> str:
    """A number as text; "" for what is none, or is NaN or inf."""
    return format(value, form) if isinstance(value, int | float) and math.isfinite(value) else ""
