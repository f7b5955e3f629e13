"""Arrays in the cache, each with the SHA-256 of its file: one that was damaged is computed again and not believed.

The file `checksums/features-X.npy.sha256` of `features/X.npy` holds the hash, and the state of the array (size, times of change, inode) in
which it was verified; in that state it is not read again to verify it. Arrays of earlier versions have no hash, and get one when they are
read.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write, sha256_file
from encoders.runtime.read_errors import READ_ERRORS


@contextmanager
def write_cached_array(path: Path) -> Iterator[Path]:
    """Yields a temporary path for the array, which replaces `path` when the block succeeds; errors as those of `atomic_write`."""
    with atomic_write(path) as part:
        yield part
        digest = sha256_file(part)
        _write_checksum(path, digest, "")  # before the array: one without its hash would be taken for one of an earlier version
    _note_verified(path, digest)


def read_cached_array(path: Path, mapped: bool = False) -> Array | None:
    """The array in a file of the cache; None if it is missing or damaged.  mapped: as a read-only memory map."""
    try:
        if not _is_verified(path):
            return None
        array: Array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except READ_ERRORS:
        return None
    return array


def _is_verified(path: Path) -> bool:
    """Whether the file has the bytes that were written. Raises OSError if it cannot be read."""
    state = _describe_state(path)
    try:
        digest, _, known = _checksum_file(path).read_text().strip().partition(" ")
    except FileNotFoundError:
        _note_verified(path, sha256_file(path))
        return True
    except UnicodeDecodeError:
        return False
    if known == state:
        return True
    if sha256_file(path) != digest:
        return False
    _note_verified(path, digest)
    return True


def _note_verified(path: Path, digest: str) -> None:
    """Notes the state in which the file has this hash; a cache that cannot be written only means that it is verified again."""
    with suppress(OSError, InputError):
        _write_checksum(path, digest, _describe_state(path))


def _write_checksum(path: Path, digest: str, state: str) -> None:
    with atomic_write(_checksum_file(path)) as part:
        part.write_text(f"{digest} {state}\n")


def _checksum_file(path: Path) -> Path:
    return path.parent.with_name("checksums") / f"{path.parent.name}-{path.name}.sha256"


def _describe_state(path: Path) -> str:
    facts = os.stat(path)
    return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}"
