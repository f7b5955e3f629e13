"""What a tracker of runs does (W&B, TensorBoard, MLflow), and the run that it shows.

A tracker mirrors `metrics.jsonl`, which is always written. It may fail: failures are recorded and reported, and never stop a run.
"""

import secrets
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol, TypeAlias

import numpy as np

from encoders.runtime.arrays import Array

TrackerName: TypeAlias = Literal["jsonl", "wandb", "tensorboard", "mlflow"]
Picture: TypeAlias = str | Path | Array  # a PNG file, or (H, W[, 3]) uint8
SummaryKind: TypeAlias = Literal["min", "max", "last"]
AlertLevel: TypeAlias = Literal["info", "warning"]

# How a run ended. preempted: to be resumed by its job; cancelled: by the user; stopped: by the watchdog.
Outcome: TypeAlias = Literal["finished", "preempted", "cancelled", "stopped", "diverged", "failed"]
OUTCOME_EXIT_STATUS: dict[Outcome, int] = {"finished": 0, "preempted": 75, "cancelled": 130, "stopped": 3, "diverged": 3, "failed": 1}
RECORD: TrackerName = "jsonl"  # not a tracker: the record, which is always written
DEFAULT_TRACKERS: tuple[TrackerName, ...] = ("jsonl", "wandb")
MAX_TRACKER_FAILURES = 5  # failed calls after which a tracker is given up


def new_run_id() -> str:
    """A new run id of eight characters, like those of W&B."""
    return secrets.token_hex(4)


@dataclass(frozen=True)
class TrackedRun:
    """A run as trackers show it, under the names that W&B uses.

    axes: metrics that charts have as x, the usual one first.  curves: metrics, or patterns such as `train/*`, with the value of each that
    a table of runs shows beside the last one.  system_metrics: whether the use of processor, memory and GPU is recorded."""

    id: str = field(default_factory=new_run_id)
    project: str = "isograft"
    group: str | None = None
    job_type: str | None = None
    name: str | None = None
    config: Mapping[str, object] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    axes: tuple[str, ...] = ()
    curves: Mapping[str, SummaryKind] = field(default_factory=dict)
    system_metrics: bool = False


class Tracker(Protocol):
    """Shows one run. No method raises an error of the service, and all may be called after it was given up."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds numbers at `step`."""

    def image(self, step: int, name: str, picture: Picture) -> None:
        """Adds a picture."""

    def html(self, name: str, text: str) -> None:
        """Adds a page without scripts."""

    def alert(self, step: int, title: str, text: str, level: AlertLevel) -> None:
        """Tells whoever follows the run."""

    def summary(self, values: Mapping[str, object]) -> None:
        """Adds final numbers and short texts."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Adds a table."""

    def close(self, outcome: Outcome) -> None:
        """Ends the run. A second call does nothing."""


class GuardedTracker:
    """Records failures of a tracker with their traceback in `run_dir/<label>-errors.log`, reports the first, and gives up after several."""

    label: ClassVar[str] = "tracker"
    file_label: ClassVar[str] = "tracker"

    def __init__(self, run_dir: Path):
        self.run_dir, self.failures = run_dir.absolute(), 0

    @property
    def given_up(self) -> bool:
        """Whether nothing is sent any more."""
        return self.failures >= MAX_TRACKER_FAILURES

    @contextmanager
    def record_failure(self, action: str) -> Iterator[None]:
        """Failures of the tracker inside the block are recorded, reported once, and never raised."""
        try:
            yield
        except Exception:  # noqa: BLE001 (the tracker's boundary: no failure of a tracker may stop a run)
            self.failures += 1
            log = self.run_dir / f"{self.file_label}-errors.log"
            where = f"see {log}"
            try:
                with open(log, "a") as file:
                    file.write(f"{action}\n{traceback.format_exc()}\n")
            except OSError as error:  # a full disk: the run itself decides what that means
                where = f"its traceback could not be written ({error.strerror})"
            if self.failures == 1:
                print_tracker_message(self.label, f"{action} failed, the run continues; {where}")


def print_tracker_message(label: str, text: str) -> None:
    """Prints a line on standard error."""
    print(f"{label}: {text}", file=sys.stderr, flush=True)


def load_picture(picture: Picture) -> Array:
    """The pixels of a picture, uint8, without the metadata of a PNG file, which may name a patient."""
    from PIL import Image

    if isinstance(picture, str | Path):
        with Image.open(picture) as file:
            return np.asarray(file.convert("RGB"))
    return picture


def flatten_settings(settings: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested settings with dotted names, e.g. `optim.lr`."""
    flat: dict[str, object] = {}
    for key, value in settings.items():
        flat |= flatten_settings(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
