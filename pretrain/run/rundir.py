"""A run's folder: `runs/<name>/` with config.yaml, run.json, metrics.jsonl, manifest.npz, checkpoints/ and a lock.

config.yaml    the recipe, resolved: every setting written out
run.json       what the run is (id, store, versions) and each of its sessions (host, device, SLURM job, first step, exact or not)
manifest.npz   what it trains on, as hashes
lock           the process that works on it now
"""

import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from encoders.runtime import paths
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.files import ensure_writable, process_tag, read_json, write_json

EMPTY_LOCK_MAX_AGE_S = 5.0  # a lock that is empty for longer was left so by a process that died


@dataclass(frozen=True)
class RunDir:
    """Where the parts of one run are."""

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
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def requeue(self) -> Path:
        """Exists while a run waits to go on in another job."""
        return self.path / ".requeue"

    def exists(self) -> bool:
        return self.config.exists() and self.info.exists()

    def read(self) -> dict[str, Any]:
        return read_json(self.info)

    def update(self, **changed: Any) -> None:
        write_json(self.info, (self.read() if self.info.exists() else {}) | changed)


def run_dir_for(name: str, root: Path | None = None) -> RunDir:
    """The folder of the run `name`. Raises InputError for a name that is no file name."""
    if not name or name != Path(name).name or name.startswith("."):
        raise InputError(f"{name!r} cannot be the name of a run: use letters, digits, - and _")
    return RunDir((root or paths.runs_dir()) / name)


def find_run(run: str) -> RunDir:
    """The folder of a run given by name or path. Raises InputError naming the nearest one."""
    where = RunDir(Path(run)) if RunDir(Path(run)).exists() else run_dir_for(Path(run).name)
    if not where.exists():
        raise unknown_name_error("run", run, [r.name for r in list_runs()], f"Runs are in {paths.runs_dir()}.")
    return where


def list_runs() -> list[RunDir]:
    """Every run below the working folder, by name."""
    folder = paths.runs_dir()
    return [run for path in sorted(folder.iterdir()) if (run := RunDir(path)).exists()] if folder.is_dir() else []


def describe_session(device: str, step: int) -> dict[str, Any]:
    """What is known of this process: one entry of `sessions` in run.json."""
    return {
        "from_step": step,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "device": device,
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def package_versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    from importlib.metadata import version

    return {"python": platform.python_version()} | {name: version(name) for name in ("torch", "timm", "lightly", "numpy")}


def git_commit() -> str | None:
    """The commit of the checkout this code runs from, with `+` when files differ; None when installed."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    ask = ["git", "-C", str(here)]
    done = subprocess.run([*ask, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*ask, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False).stdout.strip()
    return done.stdout.strip() + ("+" if changed else "") if done.returncode == 0 else None


@contextmanager
def lock_run(run: RunDir, say: Any = print) -> Iterator[None]:
    """Holds the run's lock, so that no two processes write to it. Raises InputError telling who holds it.

    A lock is taken over, and that is said, when its process is dead on this host or was an earlier life of the same SLURM job."""
    lock = run.path / "lock"
    mine = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "born": _process_start_ticks(os.getpid()),
        "job": os.environ.get("SLURM_JOB_ID"),
    }
    ensure_writable(run.path)
    for _ in range(3):  # a lock may go between our look and our try
        if _try_to_lock(lock, json.dumps(mine)):
            break
        _take_over_lock(lock, run, mine, say)
    else:
        raise InputError(f"run {run.name!r} is being started by another process; try again")
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def is_run_alive(run: RunDir) -> bool:
    """Whether a process works on the run, as far as can be seen from here: a lock of another host counts as alive."""
    try:
        held = json.loads((run.path / "lock").read_text())
    except (FileNotFoundError, ValueError):
        return False
    return held.get("host") != socket.gethostname() or _is_process_alive(held)


def _try_to_lock(lock: Path, text: str) -> bool:
    """Whether the lock was free and now says `text`. It never exists without saying who holds it: a link is one step, also on NFS."""
    part = lock.with_name(f".lock.{process_tag()}.part")
    part.write_text(text)
    try:
        os.link(part, lock)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        try:
            handle = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as file:
            file.write(text)
    finally:
        part.unlink(missing_ok=True)
    return True


def _take_over_lock(lock: Path, run: RunDir, mine: dict[str, Any], say: Any) -> None:
    """Removes a stale lock; raises InputError for one that may be alive."""
    try:
        found = lock.read_text()
        held = json.loads(found)
    except FileNotFoundError:
        return
    except ValueError:  # a file system without links: its writer died between creating and filling it, or is about to fill it
        if _lock_age_s(lock) < EMPTY_LOCK_MAX_AGE_S:
            return
        held = {}
    who = f"process {held.get('pid')} on {held.get('host')}" + (f", SLURM job {held['job']}" if held.get("job") else "")
    same_host = held.get("host") == mine["host"]
    if not held or (same_host and not _is_process_alive(held)):
        say(f"run {run.name}: taking over the lock of {who}, which is no longer alive")
    elif held.get("job") and held["job"] == mine["job"] and not same_host:
        say(f"run {run.name}: taking over the lock of an earlier start of this job ({who})")
    else:
        reason = "it is alive" if same_host else "whether it is alive cannot be seen from here"
        raise InputError(
            f"run {run.name!r} is locked by {who}, and {reason}. Wait for it or stop it; if you know that it is dead, remove {lock} "
            f"and try again"
        )
    _remove_stale_lock(lock, found)


def _lock_age_s(lock: Path) -> float:
    """Seconds since the lock was written; 0 when it has gone."""
    try:
        return time.time() - lock.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _remove_stale_lock(lock: Path, stale: str) -> None:
    """Removes the lock if it still says `stale`: another process may have found it stale too, and hold it by now. One at a time removes."""
    removing = lock.with_name(".lock.removing")
    try:
        os.close(os.open(removing, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        if _lock_age_s(removing) > EMPTY_LOCK_MAX_AGE_S:  # who held it died within these lines
            removing.unlink(missing_ok=True)
        return
    try:
        if lock.read_text() == stale and (stale or _lock_age_s(lock) > EMPTY_LOCK_MAX_AGE_S):
            lock.unlink()
    except FileNotFoundError:
        pass
    finally:
        removing.unlink(missing_ok=True)


def _is_process_alive(held: dict[str, Any]) -> bool:
    """Whether the very process is alive: a number may have been given to another one since."""
    try:
        os.kill(held["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return held.get("born") is None or _process_start_ticks(held["pid"]) in (held["born"], None)


def _process_start_ticks(pid: int) -> str | None:
    """When a process was started, in clock ticks since boot; None where /proc does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None
