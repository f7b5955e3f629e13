"""The lock of a run's folder: one process at a time writes to a run.

The file `lock` names the process that holds it. It is taken over from a process that is known to be dead.
"""

import json
import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from encoders.runtime import dist, slurm_jobs
from encoders.runtime.errors import InputError
from encoders.runtime.files import ensure_writable, process_tag
from encoders.runtime.storage_errors import explain_storage_errors
from pretrain.run.lock_holder import LockInfo, is_process_alive, parse_lock, process_start_ticks, read_lock_text
from pretrain.run.process import PrintLine
from pretrain.run.rundir import RunDir

CLOCK_SKEW_S = 60.0  # between this host and a file server
EMPTY_LOCK_MAX_AGE_S = 5.0  # an older empty lock belongs to a process that died before it filled it


def lock_on_main_rank(run: RunDir, say: PrintLine) -> AbstractContextManager[None]:
    """The run's lock, held by rank 0."""
    return lock_run(run, say) if dist.is_main() else nullcontext()


@contextmanager
def lock_run(run: RunDir, say: PrintLine = print) -> Iterator[None]:
    """Holds the run's lock. Raises InputError that names the process which holds it.

    A lock is taken over, with a message, if its process is dead on this host or was an earlier start of the same SLURM job."""
    lock = run.path / "lock"
    own_lock: LockInfo = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "born": process_start_ticks(os.getpid()),
        "job": slurm_jobs.own_job_id(),
    }
    ensure_writable(run.path)
    for _ in range(3):  # another process may take or release the lock between two lines
        if _try_to_lock(lock, json.dumps(own_lock)):
            break
        _take_over_lock(lock, run, own_lock, say)
    else:
        raise InputError(f"run {run.name!r} is being started by another process; try again")
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _try_to_lock(lock: Path, text: str) -> bool:
    """Whether the lock was free and now holds `text`. A hard link creates it with its contents in one step, also on NFS."""
    part = lock.with_name(f".lock.{process_tag()}.part")
    with explain_storage_errors(part, "the lock of the run"):
        part.write_text(text)
    try:
        os.link(part, lock)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        try:
            handle = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as file:
            file.write(text)
    finally:
        part.unlink(missing_ok=True)
    return True


def _take_over_lock(lock: Path, run: RunDir, own_lock: LockInfo, say: PrintLine) -> None:
    """Removes a stale lock. Raises InputError for one whose process may be alive."""
    text = read_lock_text(lock)
    if text is None:
        return
    is_empty = not text.strip("\0 \n")  # without hard links, or after a power failure: its writer created it and did not fill it
    lock_info = parse_lock(text)
    if lock_info is None and _lock_age_s(lock) < EMPTY_LOCK_MAX_AGE_S:
        return  # its writer may be about to fill it
    if lock_info is None and not is_empty:
        raise InputError(
            f"run {run.name!r} has the lock {lock}, which names no process: it is damaged or not one of ours, so nobody can tell whether "
            "a process works on the run; if you know that none does, remove the lock and try again"
        )
    if lock_info is None:
        say(f"run {run.name}: taking over a lock that its process left empty")
        _remove_stale_lock(lock, text)
        return
    holder = f"process {lock_info['pid']} on {lock_info['host']}"
    if lock_info.get("job"):
        holder += f", SLURM job {lock_info['job']}"
    same_host = lock_info.get("host") == own_lock["host"]
    if same_host and not is_process_alive(lock_info):
        say(f"run {run.name}: taking over the lock of {holder}, which is no longer alive")
    elif lock_info.get("job") and lock_info["job"] == own_lock["job"] and not same_host:
        say(f"run {run.name}: taking over the lock of an earlier start of this job ({holder})")
    else:
        reason = "it is alive" if same_host else "this host cannot tell whether it is alive"
        raise InputError(
            f"run {run.name!r} is locked by {holder}, and {reason}. Wait for it or stop it; if you know that it is dead, remove {lock} "
            f"and try again"
        )
    _remove_stale_lock(lock, text)


def _lock_age_s(lock: Path) -> float:
    """Seconds since the lock was written; 0 if it no longer exists. One from the future was written before the clock was set back."""
    try:
        age = time.time() - lock.stat().st_mtime
        return math.inf if age < -CLOCK_SKEW_S else age
    except FileNotFoundError:
        return 0.0


def _remove_stale_lock(lock: Path, stale: str) -> None:
    """Removes the lock if it still holds the text `stale`.

    Another process may have removed the same stale lock and hold the run by now. `.lock.removing` lets one process at a time remove."""
    removing = lock.with_name(".lock.removing")
    try:
        os.close(os.open(removing, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        if _lock_age_s(removing) > EMPTY_LOCK_MAX_AGE_S:  # the process that created it died in this function
            removing.unlink(missing_ok=True)
        return
    try:
        if read_lock_text(lock) == stale and (stale.strip("\0 \n") or _lock_age_s(lock) > EMPTY_LOCK_MAX_AGE_S):
            lock.unlink(missing_ok=True)
    finally:
        removing.unlink(missing_ok=True)
