"""Writes that fail because of the storage: a full disk, a quota, a read-only file system, a limit on file sizes, a fault of the medium.

Libraries hide the reason: `torch.save` raises RuntimeError ("unexpected pos"), NumPy an OSError without number ("8000 requested and 12
written"), h5py and safetensors a text. `explain_storage_errors` finds the reason and raises StorageError, one sentence that the command
line prints alone, with exit status 1.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from encoders.runtime.errors import InputError

CAUSES = {
    errno.ENOSPC: "no space left on {}",
    errno.EDQUOT: "the disk quota is used up on {}",
    errno.EROFS: "the file system is read-only at {}",
    errno.EFBIG: "the limit on the size of a file (ulimit -f) is reached in {}",
    errno.EIO: "input/output error on {}",
    errno.ESTALE: "stale network file handle (the server or its export is gone) on {}",
}
# h5py: "errno = 28", safetensors: "os error 28", Python: "[Errno 28]"
WRITTEN_NUMBER = re.compile(r"(?:errno = |os error |\[Errno )(\d+)")
HIDDEN_REASON = re.compile(r"unexpected pos|PytorchStreamWriter|\d+ requested and \d+ written|write failed|unable to|can't", re.I)
PROBE_BYTES = 1 << 16


class StorageError(OSError):
    """The storage refused a write: what was not saved, why, and what is intact.

    number: of `errno`, one of CAUSES.  path: the folder.  lost: what was not saved.  intact: what the user still has."""

    def __init__(self, number: int, path: str, lost: str = "", intact: str = ""):
        super().__init__(number, os.strerror(number), path)
        self.number, self.path, self.lost, self.intact = number, path, lost, intact

    def __reduce__(self) -> tuple[type["StorageError"], tuple[int, str, str, str]]:
        """It is raised in worker processes too."""
        return StorageError, (self.number, self.path, self.lost, self.intact)

    def __str__(self) -> str:
        cause = CAUSES[self.number].format(self.path)
        return cause + (f": {self.lost} was not saved" if self.lost else "") + (f"; {self.intact}" if self.intact else "")

    def about(self, lost: str, intact: str, path: str = "") -> "StorageError":
        """The same error in the words of whoever wanted to write.  path: the folder to name, where the writer's own is a temporary one."""
        return StorageError(self.number, path or self.path, lost, intact)


def find_storage_error(error: BaseException, path: str | Path | None, lost: str = "", intact: str = "") -> StorageError | None:
    """The StorageError behind an exception of a write to `path`; None if the storage is not the reason.

    Where no exception of the chain says the reason, `path` is written to once more, which tells."""
    if isinstance(error, StorageError):
        return error.about(lost or error.lost, intact or error.intact)
    number = _written_number(error)
    if number is None and path is not None and _hides_reason(error):
        number = _probe(Path(path))
    return None if number is None else StorageError(number, str(_folder_of(path)), lost, intact)


@contextmanager
def explain_storage_errors(path: str | Path, lost: str = "", intact: str = "") -> Iterator[None]:
    """Raises StorageError for an exception of the block whose reason is the storage; others pass.

    path: what the block writes.  lost: the sentence says that this was not saved.  intact: its end, what the user still has."""
    try:
        yield
    except Exception as error:
        known = find_storage_error(error, path, lost, intact)
        if known is None:
            raise
        raise known from error


@contextmanager
def name_lost(lost: str, intact: str = "", path: str = "") -> Iterator[None]:
    """A StorageError of the block says in its sentence what was lost, in the words of the caller, and what is intact.

    path: the folder that it names.  Other exceptions pass: the block also reads files, whose faults are not those of the output."""
    try:
        yield
    except StorageError as error:
        raise error.about(lost, intact, path) from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and those that it came from."""
    seen: set[int] = set()
    now: BaseException | None = error
    while now is not None and id(now) not in seen:
        seen.add(id(now))
        yield now
        now = now.__cause__ or now.__context__


def _written_number(error: BaseException) -> int | None:
    """The number of the reason, as an attribute or in the text of the exception or of one that it came from."""
    if isinstance(error, InputError):  # of a file that is read, such as a damaged image
        return None
    for one in _chain(error):
        if isinstance(one, OSError) and one.errno in CAUSES:
            return one.errno
        if isinstance(one, OSError | RuntimeError | ValueError) or type(one).__name__ == "SafetensorError":
            for match in WRITTEN_NUMBER.finditer(str(one)):
                if int(match[1]) in CAUSES:
                    return int(match[1])
    return None


def _hides_reason(error: BaseException) -> bool:
    """Whether it is an exception of a write that does not tell its reason."""
    return any(isinstance(one, OSError | RuntimeError) and bool(HIDDEN_REASON.search(str(one))) for one in _chain(error))


def _probe(path: Path) -> int | None:
    """The number of the reason why nothing can be appended to a file; None if it can."""
    try:
        with path.open("ab") as file:
            start = file.tell()
            try:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
            finally:
                os.ftruncate(file.fileno(), start)
    except OSError as error:
        return error.errno if error.errno in CAUSES else None
    return None


def _folder_of(path: str | Path | None) -> Path | str:
    """The folder of a file, which the sentence names: the file itself may be a temporary one."""
    if path is None:
        return "the file system that this command writes to"
    path = Path(path)
    return path if path.is_dir() else path.parent
