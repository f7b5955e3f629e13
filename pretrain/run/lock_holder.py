"""The process that holds the lock of a run, and whether it is alive. It needs no torch, so that `pretrain status` answers at once."""

import json
import os
import socket
from pathlib import Path
from typing import TypedDict, cast

from pretrain.run.rundir import RunDir


class LockInfo(TypedDict, total=False):
    """The process that holds a lock; {} if the lock is empty."""

    host: str
    pid: int
    born: str | None  # clock ticks since boot: a process id may be reused
    job: str | None


def read_lock(run: RunDir) -> LockInfo:
    """Who holds the run's lock; {} if nobody does, or the lock cannot be read."""
    try:
        found = json.loads((run.path / "lock").read_text())
    except (OSError, ValueError):
        return {}
    return cast(LockInfo, found) if isinstance(found, dict) else {}


def is_run_alive(run: RunDir) -> bool:
    """Whether a process works on the run, as far as this host can tell: a lock of another host counts as alive."""
    holder = read_lock(run)
    return bool(holder) and (holder.get("host") != socket.gethostname() or is_process_alive(holder))


def is_process_alive(lock_info: LockInfo) -> bool:
    """Whether the process that wrote the lock is alive. Its start time tells it from a later process with the same id."""
    try:
        os.kill(lock_info["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return lock_info.get("born") is None or process_start_ticks(lock_info["pid"]) in (lock_info["born"], None)


def process_start_ticks(pid: int) -> str | None:
    """The start time of a process in clock ticks since boot; None without /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None
