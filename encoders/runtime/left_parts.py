"""Temporary files and folders that killed processes left beside what they were writing (`encoders.runtime.files.atomic_write`)."""

import os
import re
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path

PART_NAME = re.compile(r"\..+\.(?P<host>[^/]+)-(?P<pid>\d+)\.part", re.S)
FOREIGN_AGE_S = 7 * 24 * 3600.0  # of another host it cannot be known whether the process lives


def remove_left_parts(folder: Path) -> int:
    """Removes what dead processes left in `folder`, not below it; returns how many there were.

    A process is dead if this host has none of its number. What a process of another host wrote is removed after a week."""
    removed = 0
    with suppress(OSError):  # there is no such folder; or it cannot be written, which what is written next will say
        for entry in os.scandir(folder):
            if (name := PART_NAME.fullmatch(entry.name)) and _is_left(Path(entry.path), name["host"], int(name["pid"])):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    Path(entry.path).unlink(missing_ok=True)
                removed += 1
    return removed


def _is_left(path: Path, host: str, pid: int) -> bool:
    """Whether the process that wrote `path` is dead."""
    if host != socket.gethostname():
        with suppress(OSError):
            return time.time() - path.lstat().st_mtime > FOREIGN_AGE_S
        return False
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # of another user
        return False
    return False
