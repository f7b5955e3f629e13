"""A run's folder: `runs/<name>/` with config.yaml, run.json, metrics.jsonl, manifest.npz, checkpoints/ and a lock.

config.yaml    the resolved recipe: every setting
run.json       what the run is (id, store, versions), and each of its sessions (host, device, SLURM job, first and last step)
metrics.jsonl  the logged metrics, one line per `log_every` steps
manifest.npz   hashes of the images and patients that it trains on
start.npz      features of the probe images at step 0
lock           the process that works on it
"""

import os
import platform
import socket
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Unpack

from encoders.runtime import paths, slurm_jobs
from encoders.runtime.entry_names import check_entry_name, find_fault, show_name
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.sealed_json import read_sealed_json, write_sealed_json
from encoders.runtime.sweep_folder import find_sweep, list_sweeps
from pretrain.run.run_info import RUN_INFO_ADVICE, RunInfo, SessionInfo, check_run_info


@dataclass(frozen=True)
class RunDir:
    """The files of one run."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def info(self) -> Path:
        return self.path / "run.json"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.npz"

    @property
    def start_features(self) -> Path:
        return self.path / "start.npz"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def requeue_marker(self) -> Path:
        """Exists while a stopped run waits to be resumed by another job."""
        return self.path / ".requeue"

    def exists(self) -> bool:
        return self.config.exists() and self.info.exists()

    def read(self) -> RunInfo:
        """The contents of run.json. Raises InputError if it cannot be read, lacks an entry or was changed after it was written."""
        return check_run_info(read_sealed_json(self.info, RUN_INFO_ADVICE, RunInfo.__annotations__, "asked"), self.info)

    def update(self, **changes: Unpack[RunInfo]) -> None:
        """Writes run.json with other values, atomically."""
        write_sealed_json(self.info, {**(self.read() if self.info.exists() else {}), **changes})


def run_dir_for(name: str, root: Path | None = None) -> RunDir:
    """The folder of the run `name`, below `root` or runs/. Raises InputError for a name that no run may have."""
    folder = root or paths.runs_dir()
    if name and name == Path(name).name and RunDir(folder / name).exists() and (wrong := find_fault("run", name)):
        raise InputError(f"the run {show_name(name)} has a name that is no longer valid ({wrong}); rename its folder in {folder}")
    return RunDir(folder / check_entry_name("run", name))


def find_run(run: str) -> RunDir:
    """The folder of an existing run, given by name or path. Raises InputError that names the closest existing runs."""
    found = RunDir(Path(run)) if run and RunDir(Path(run)).exists() else run_dir_for(Path(run).name)
    if not found.exists():
        if (sweep := find_sweep(run)) is not None:
            raise InputError(f"{run!r} is a sweep; name one of its runs: {', '.join(sweep.run_names())}")
        if jobs := slurm_jobs.list_jobs(found.path):
            raise InputError(
                f"run {found.name!r} has not started yet: it was submitted as job {jobs[-1]}; "
                f"`pretrain status {found.name}` shows its state and its log"
            )
        raise unknown_name_error(
            "run", run, [*(r.name for r in list_runs()), *(s.name for s in list_sweeps())], f"Runs are in {paths.runs_dir()}."
        )
    return found


def list_runs() -> list[RunDir]:
    """Every run in runs/, by name."""
    folder = paths.runs_dir()
    return [run for path in sorted(folder.iterdir()) if (run := RunDir(path)).exists()] if folder.is_dir() else []


def describe_session(device: str, step: int) -> SessionInfo:
    """The entry of this process in `sessions` of run.json."""
    return {
        "from_step": step,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "device": device,
        "slurm_job": slurm_jobs.own_job_id(),
    }


def package_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that the numbers depend on."""
    return {"python": platform.python_version()} | {name: _find_installed_version(name) for name in ("torch", "timm", "lightly", "numpy")}


@cache
def _find_installed_version(distribution: str) -> str:
    """The version of an installed library. To read one takes a millisecond or two, and every checkpoint holds four."""
    from importlib.metadata import version

    return version(distribution)


def git_commit() -> str | None:
    """The commit of the checkout that this code runs from, with `+` if tracked files differ; None for an installed package."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    git = ["git", "-C", str(checkout)]
    commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    changes = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False).stdout.strip()
    return commit.stdout.strip() + ("+" if changes else "") if commit.returncode == 0 else None
