"""One process at a time does something for a folder: a second one is refused, not queued."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from encoders.runtime.errors import InputError
from encoders.runtime.files import ensure_writable


@contextmanager
def exclusive_work(folder: Path, doing: str) -> Iterator[None]:
    """Holds the file `.NAME.lock` beside `folder` during the block; it is removed at the end, and the system frees it if the process dies.

    doing: e.g. "submitting the run 'a'". Raises InputError while another process does the same. A file system without locks has none."""
    new = [path for path in (folder.parent, *folder.parent.parents) if not path.exists()]
    lock = ensure_writable(folder.parent) / f".{folder.name}.lock"
    busy = f"another process is {doing} at this moment; wait until it has ended"
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(busy) from error
        except OSError:  # ENOLCK, EOPNOTSUPP
            pass
        if not _is_file(handle, lock):
            raise InputError(busy)  # the other one has just ended, and removed the file that is held here
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            with suppress(OSError):  # not empty: something was written
                for path in new:
                    path.rmdir()
    finally:
        os.close(handle)


def _is_file(handle: int, path: Path) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
