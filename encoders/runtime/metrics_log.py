"""The metrics of a run: `metrics.jsonl`, flushed after every line, is the record; trackers mirror it and may fail.

A line is `{"step": 120, "time": 1763900000.1, "loss": 4.2, ...}`. `time` (unix seconds) and names that start with `time_` or `time/` are
wall-clock quantities; all other values of a resumed run equal those of a run that was never stopped.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, SupportsFloat

from encoders.runtime.files import atomic_write, write_json
from encoders.runtime.json_types import Json
from encoders.runtime.line_file import append_line
from encoders.runtime.tracker import (
    DEFAULT_TRACKERS,
    AlertLevel,
    Outcome,
    Picture,
    SummaryKind,
    TrackedRun,
    Tracker,
    TrackerName,
    new_run_id,
)
from encoders.runtime.trackers import open_trackers
from encoders.runtime.wandb_mirror import WandbMirror
from encoders.runtime.wandb_start import WandbMode
from encoders.runtime.wandb_views import ComparisonView

METRICS_FILE = "metrics.jsonl"
NOT_FINITE = ("nan", "inf", "-inf")  # the names of these numbers in the record
MAX_STEP = 2**63 - 1  # the largest whole number of a line
SummaryValue = SupportsFloat | str | None
TrackedNumbers = Callable[[int, Mapping[str, float]], Mapping[str, float]]  # (step, as recorded) -> as trackers show them


class MetricsLog:
    """Writes the record of one run and mirrors it; on ranks above 0 every call does nothing.

    run_dir: the record is `run_dir/metrics.jsonl`.  project, group, job_type, name, config, tags: as in W&B; paths, hosts and patients are
    removed from the config before it is sent.  resume: the W&B id of the run to continue (`.id` of the MetricsLog that began it), or None.
    mode: of W&B: "online", "offline", "disabled", or None to decide from the environment.  step: the step at which the run continues:
    later lines and an incomplete last line are deleted; None keeps every complete line.  track: the trackers.  axes, curves: as in
    `TrackedRun`.  shown: the numbers of a step as trackers show them; None: as recorded.  system_metrics: trackers also record the use of
    processor, memory and GPU.

    outcome: how the run ends, if it is not what the end of the `with` block says (finished, or failed by an exception)."""

    def __init__(
        self,
        run_dir: str | Path,
        *,
        project: str = "isograft",
        group: str | None = None,
        job_type: str | None = None,
        name: str | None = None,
        config: Mapping[str, object] | None = None,
        resume: str | None = None,
        mode: WandbMode | None = None,
        step: int | None = None,
        rank: int = 0,
        tags: tuple[str, ...] = (),
        track: Sequence[TrackerName] = DEFAULT_TRACKERS,
        axes: tuple[str, ...] = (),
        curves: Mapping[str, SummaryKind] | None = None,
        shown: TrackedNumbers | None = None,
        system_metrics: bool = False,
    ):
        self.run_dir, self.id, self.active = Path(run_dir), resume or new_run_id(), rank == 0
        self.outcome: Outcome | None = None
        self.shown = shown or (lambda step, values: values)
        self.trackers: list[Tracker] = []
        if not self.active:
            return
        self.run_dir.mkdir(parents=True, exist_ok=True)
        truncate_metrics(self.run_dir / METRICS_FILE, step)
        described = TrackedRun(self.id, project, group, job_type, name, config or {}, tags, axes, curves or {}, system_metrics)
        self.trackers = open_trackers(track, self.run_dir, described, mode, step)
        self.file = open(self.run_dir / METRICS_FILE, "ab", buffering=0)  # noqa: SIM115 (open for as long as the run)

    @property
    def wandb(self) -> WandbMirror | None:
        """W&B, if it is among the trackers."""
        return next((tracker for tracker in self.trackers if isinstance(tracker, WandbMirror)), None)

    def log(self, step: int, **scalars: SupportsFloat) -> None:
        """Writes one line of numbers at `step`. Tensors are copied to the host, which waits for the device: log rarely.

        Raises StorageError when the disk is full; the record then ends with the line before."""
        if not self.active:
            return
        values = {name: float(value) for name, value in scalars.items()}
        line = {"step": step, "time": round(time.time(), 3)} | {name: to_json_number(value) for name, value in values.items()}
        append_line(self.file, json.dumps(line, allow_nan=False), f"the metrics line of step {step}")
        self.show(step, values)

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Sends numbers to the trackers only, e.g. those of step 0, which run.json holds."""
        for tracker in self.trackers:
            tracker.log(step, self.shown(step, values))

    def image(self, step: int, name: str, picture: Picture) -> None:
        """Sends a picture to the trackers: a PNG file or an (H, W[, 3]) uint8 array. The record does not contain it."""
        for tracker in self.trackers:
            tracker.image(step, name, picture)

    def html(self, name: str, text: str) -> None:
        """Sends a page without scripts to the trackers, and writes it as `name.html`."""
        if not self.active:
            return
        with atomic_write(self.run_dir / f"{name}.html") as part:
            part.write_text(text)
        for tracker in self.trackers:
            tracker.html(name, text)

    def alert(self, step: int, title: str, text: str, level: AlertLevel = "warning") -> None:
        """Tells whoever follows the run in a tracker; W&B sends a message."""
        for tracker in self.trackers:
            tracker.alert(step, title, text, level)

    def summary(self, **values: SummaryValue) -> None:
        """Adds final numbers and short texts, e.g. `**{"bench/kermany/knn/auroc": 0.93}`, to `summary.json` and to the trackers."""
        if not self.active:
            return
        path = self.run_dir / "summary.json"
        earlier = json.loads(path.read_text()) if path.exists() else {}
        write_json(path, earlier | {name: to_json_scalar(value) for name, value in values.items()})
        for tracker in self.trackers:
            tracker.summary(values)

    def artifact(self, name: str, folder: str | Path, metadata: Mapping[str, object] | None = None) -> None:
        """Sends the files of an exported encoder as a W&B artifact of type `model`."""
        if self.wandb:
            self.wandb.artifact(name, Path(folder), dict(metadata or {}))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[SummaryValue]]) -> None:
        """Writes a table of numbers and short texts, as `name.json` in the run's folder and in the trackers."""
        if not self.active:
            return
        write_json(
            self.run_dir / f"{name}.json", {"columns": list(columns), "rows": [[to_json_scalar(value) for value in row] for row in rows]}
        )
        for tracker in self.trackers:
            tracker.table(name, columns, rows)

    def use_artifact(self, artifact: str, sha256: Sequence[str]) -> None:
        """Marks the artifact of an encoder as an input of this run, if it is in W&B with weights of one of the hashes; online only."""
        if self.wandb:
            self.wandb.use_artifact(artifact, sha256)

    def save_views(self, view: ComparisonView) -> str | None:
        """Saves a workspace and a report in W&B. The report's URL; None offline or without wandb-workspaces."""
        return self.wandb.save_views(view) if self.wandb else None

    def close(self, outcome: Outcome = "finished") -> None:
        """Ends the record and the runs of the trackers. A second call does nothing."""
        if self.active and not self.file.closed:
            self.file.close()
        for tracker in self.trackers:
            tracker.close(self.outcome or outcome)
        self.trackers = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self.close("finished" if kind is None else "cancelled" if interrupted else "failed")


def read_metrics(run_dir: str | Path) -> list[dict[str, Any]]:
    """The whole lines of a run's record, in order; [] when there is no record. NaN and infinities are read as float."""
    return read_metrics_counting_damage(run_dir)[0]


def read_metrics_counting_damage(run_dir: str | Path) -> tuple[list[dict[str, Any]], int]:
    """The whole lines of a run's record, and the number of damaged ones, which are left out. An incomplete last line is not counted."""
    path = Path(run_dir) / METRICS_FILE
    data = path.read_bytes() if path.exists() else b""
    lines = _parse_lines(data)
    damaged = sum(line is None and data[end - 1 : end] == b"\n" for line, end in lines)
    return [_restore_floats(line) for line, _ in lines if line is not None], damaged


def truncate_metrics(path: Path, step: int | None) -> None:
    """Truncates the record before the first line after `step`; None deletes an incomplete last line only. Damaged lines before it stay."""
    if not path.exists():
        return
    data, keep = path.read_bytes(), 0
    for line, end in _parse_lines(data):
        if step is not None and line is not None and line["step"] > step:
            break
        if data[end - 1 : end] == b"\n":
            keep = end
    with open(path, "rb+") as file:
        file.truncate(keep)


def _parse_lines(data: bytes) -> list[tuple[dict[str, Any] | None, int]]:
    """Every line as (object, offset of its end); None for one that `MetricsLog.log` did not write, or not to its end."""
    lines, end = list[tuple[dict[str, Any] | None, int]](), 0
    for raw in data.split(b"\n"):
        end = min(end + len(raw) + 1, len(data))
        if raw or data[end - 1 : end] == b"\n":
            lines.append((_parse_line(raw) if data[end - 1 : end] == b"\n" else None, end))
    return lines[:-1] if data.endswith(b"\n") else lines  # behind the last line feed is no line


def _parse_line(raw: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or not all(_is_metric(value) for value in line.values()):
        return None
    step = line.get("step")
    return line if type(step) is int and step >= 0 else None


def _is_metric(value: object) -> bool:
    """Whether a value is a number of `to_json_number`."""
    if isinstance(value, str):
        return value in NOT_FINITE
    return type(value) is float or (type(value) is int and abs(value) <= MAX_STEP)


def to_json_number(value: float) -> float | str:
    """The number, or its name ("nan", "inf", "-inf") if it is not finite, as JSON requires; `float()` reads both."""
    return value if math.isfinite(value) else repr(value)


def to_json_scalar(value: SummaryValue) -> Json:
    """The value as JSON; any other type of number becomes a float."""
    return value if value is None or isinstance(value, str | bool | int) else to_json_number(float(value))


def _restore_floats(line: dict[str, Any]) -> dict[str, Any]:
    return {k: float(v) if v in NOT_FINITE else v for k, v in line.items()}
