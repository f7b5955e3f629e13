"""The process that holds the lock of a run, and whether it is alive. It needs no torch, so that `pretrain status` answers at once."""

import json
import os
import socket
from pathlib import Path
from typing import TypedDict

from encoders.runtime.errors import InputError
from pretrain.run.rundir import RunDir

MAX_PID = 2**22  # of Linux; 0 and negative numbers stand for groups of processes, which are always alive


class LockInfo(TypedDict, total=False):
    """The process that holds a lock; {} if the lock is empty."""

    host: str
    pid: int
    born: str | None  # clock ticks since boot: a process id may be reused
    job: str | None


def read_lock(run: RunDir) -> LockInfo:
    """Who holds the run's lock; {} if nobody does, or the lock names no process or cannot be read."""
    try:
        text = read_lock_text(run.path / "lock")
    except InputError:
        return {}
    return parse_lock(text or "") or {}


def read_lock_text(lock: Path) -> str | None:
    """The text of a lock; None if there is no lock. Raises InputError if it cannot be read."""
    try:
        return lock.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"the lock {lock} cannot be read ({error.strerror}); remove it if no process works on the run") from error


def parse_lock(text: str) -> LockInfo | None:
    """The process that a lock names; None for a text that names none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or type(pid := found.get("pid")) is not int or not 0 < pid <= MAX_PID:
        return None
    if not isinstance(host := found.get("host"), str) or not host:
        return None
    if any(not isinstance(found.get(name), str | None) for name in ("born", "job")):
        return None
    return LockInfo(host=host, pid=pid, born=found.get("born"), job=found.get("job"))


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
