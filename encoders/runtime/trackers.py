"""The trackers of a run, by name."""

from collections.abc import Collection, Sequence
from importlib.util import find_spec
from pathlib import Path

from encoders.runtime.errors import InputError
from encoders.runtime.tracker import TrackedRun, Tracker, TrackerName
from encoders.runtime.wandb_mirror import WandbMirror
from encoders.runtime.wandb_start import WandbMode

PACKAGES: dict[TrackerName, str] = {"tensorboard": "tensorboard", "mlflow": "mlflow"}  # optional ones


def require_trackers(names: Collection[TrackerName]) -> None:
    """Raises InputError if the package of a tracker is not installed."""
    for name, package in PACKAGES.items():
        if name in names and find_spec(package) is None:
            raise InputError(
                f"track names {name}, and the package {package} is not installed: `pip install 'isograft[{name}]'`, or leave it out, "
                f"e.g. track=[{','.join(n for n in names if n != name)}]"
            )


def open_trackers(
    names: Sequence[TrackerName], run_dir: Path, described: TrackedRun, mode: WandbMode | None = None, step: int | None = None
) -> list[Tracker]:
    """The trackers of these names.  mode: of W&B.  step: the one that the run continues from.

    Raises InputError if the package of one is not installed."""
    require_trackers(names)
    opened: list[Tracker] = []
    if "wandb" in names:
        opened.append(WandbMirror(run_dir, mode, described))
    if "tensorboard" in names:
        from encoders.runtime.tensorboard_mirror import TensorboardMirror

        opened.append(TensorboardMirror(run_dir, described, step))
    if "mlflow" in names:
        from encoders.runtime.mlflow_mirror import MlflowMirror

        opened.append(MlflowMirror(run_dir, described))
    return opened
