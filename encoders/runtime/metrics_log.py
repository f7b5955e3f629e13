"""What a run measured: `metrics.jsonl`, one flushed line a time, which is the record; Weights & Biases mirrors it and may fail.

A line is `{"step": 120, "time": 1763900000.1, "loss": 4.2, ...}`. `time` (unix seconds) and names that start with `time_` or `time/` hold
wall-clock quantities: all else in a resumed run equals the run that was never stopped.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoders.runtime.files import write_json
from encoders.runtime.wandb_mirror import WandbMirror, WandbMode, new_run_id

if TYPE_CHECKING:
    import numpy as np

METRICS_FILE = "metrics.jsonl"


class MetricsLog:
    """Writes the record of one run and mirrors it; on ranks above 0 every call does nothing.

    run_dir: the record is `run_dir/metrics.jsonl`.  project, group, job_type, name, config: as W&B means them; the config is stripped of
    paths, hosts and patients before it is sent.  resume: the W&B id of the run to continue (`.id` of the Track that began it), or None.
    mode: "online", "offline", "disabled", or None to decide from the environment.  step: the step the run continues from: later lines are
    dropped, and a torn last line too; None keeps every whole line."""

    def __init__(
        self,
        run_dir: str | Path,
        *,
        project: str = "isograft",
        group: str | None = None,
        job_type: str | None = None,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        resume: str | None = None,
        mode: WandbMode | None = None,
        step: int | None = None,
        rank: int = 0,
        tags: tuple[str, ...] = (),
    ):
        self.run_dir, self.id, self.active = Path(run_dir), resume or new_run_id(), rank == 0
        self.mirror: WandbMirror | None = None
        if not self.active:
            return
        self.run_dir.mkdir(parents=True, exist_ok=True)
        truncate_metrics(self.run_dir / METRICS_FILE, step)
        self.file = open(self.run_dir / METRICS_FILE, "a")  # noqa: SIM115 (open for as long as the run)
        self.mirror = WandbMirror(
            self.run_dir,
            mode,
            id=self.id,
            project=project,
            group=group,
            job_type=job_type,
            name=name,
            config=dict(config or {}),
            tags=tags,
        )

    def log(self, step: int, **scalars: Any) -> None:
        """One line of numbers at `step`. Tensors are fetched here, which waits for the device: log seldom."""
        if not self.active:
            return
        values = {name: float(value) for name, value in scalars.items()}
        line = {"step": step, "time": round(time.time(), 3)} | {name: to_json_number(value) for name, value in values.items()}
        self.file.write(json.dumps(line, allow_nan=False) + "\n")
        self.file.flush()
        if self.mirror:
            self.mirror.log(step, values)

    def image(self, step: int, name: str, picture: "str | Path | np.ndarray[Any, Any]") -> None:
        """A picture for W&B: a PNG file or an (H, W[, 3]) uint8 array. The record does not hold it."""
        if self.mirror:
            self.mirror.image(step, name, picture)

    def summary(self, **flat: Any) -> None:
        """Final numbers and short texts, e.g. `**{"bench/kermany/knn/auroc": 0.93}`; written to `summary.json` and to W&B's summary."""
        if not self.active:
            return
        path = self.run_dir / "summary.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        write_json(path, known | {name: to_json_scalar(value) for name, value in flat.items()})
        if self.mirror:
            self.mirror.summary(flat)

    def artifact(self, name: str, folder: str | Path, metadata: Mapping[str, Any] | None = None) -> None:
        """The files of an exported encoder as a W&B artifact of type `model`; nothing without W&B."""
        if self.mirror:
            self.mirror.artifact(name, Path(folder), dict(metadata or {}))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table of numbers and short texts; also `name.json` in the run's folder."""
        if not self.active:
            return
        write_json(
            self.run_dir / f"{name}.json", {"columns": list(columns), "rows": [[to_json_scalar(value) for value in row] for row in rows]}
        )
        if self.mirror:
            self.mirror.table(name, columns, rows)

    def uses(self, artifact: str, sha256: Sequence[str]) -> None:
        """That this run's numbers are of an encoder that W&B has; nothing offline, or where its artifact is of other weights."""
        if self.mirror:
            self.mirror.uses(artifact, sha256)

    def side_by_side(self, metrics: Sequence[str]) -> str | None:
        """A saved view of the project that compares runs by these metrics; its address, or None offline or without wandb-workspaces."""
        return self.mirror.side_by_side(metrics) if self.mirror else None

    def close(self, failed: bool = False) -> None:
        """Ends the record; W&B is told whether the run failed. Calling it twice is the same as once."""
        if self.active and not self.file.closed:
            self.file.close()
        if self.mirror:
            self.mirror.close(failed)
            self.mirror = None

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self.close(failed=kind is not None)


def read_metrics(run_dir: str | Path) -> list[dict[str, Any]]:
    """The whole lines of a run's record, in order; [] when there is none. Numbers that are not finite come back as float."""
    path = Path(run_dir) / METRICS_FILE
    if not path.exists():
        return []
    return [_restore_floats(line) for line, _ in _parse_lines(path.read_bytes())]


def truncate_metrics(path: Path, step: int | None) -> None:
    """Cuts the record back to the last whole line at or before `step`; None cuts a torn last line only."""
    if not path.exists():
        return
    keep = 0
    for line, end in _parse_lines(path.read_bytes()):
        if step is not None and line.get("step", 0) > step:
            break
        keep = end
    with open(path, "rb+") as file:
        file.truncate(keep)


def _parse_lines(data: bytes) -> list[tuple[dict[str, Any], int]]:
    """Every whole line as (object, offset of its end), up to the first that is torn."""
    found, end = [], 0
    for raw in data.splitlines(keepends=True):
        end += len(raw)
        try:
            line = json.loads(raw)
        except ValueError:
            break
        if not raw.endswith(b"\n") or not isinstance(line, dict):
            break
        found.append((line, end))
    return found


def to_json_number(value: float) -> float | str:
    """The number, or its name ("nan", "inf", "-inf") where JSON has none; `float()` reads both."""
    return value if math.isfinite(value) else repr(value)


def to_json_scalar(value: Any) -> Any:
    return value if value is None or isinstance(value, str | bool | int) else to_json_number(float(value))


def _restore_floats(line: dict[str, Any]) -> dict[str, Any]:
    return {k: float(v) if v in ("nan", "inf", "-inf") else v for k, v in line.items()}
