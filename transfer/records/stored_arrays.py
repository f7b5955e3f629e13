"""The arrays of a record on disk, each read when it is first used.

The digest of the arrays is verified when the file is first read. The statistics file of the record then keeps the size, the times of change
and the inode of the .npz file; as long as these are equal, the arrays are trusted without being read. Any edit, copy or replacement of the
file changes them, and the digest is verified again. This guards against mistakes, not against a person who forges a record.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO
from weakref import ref

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.npz_file import read_npz
from encoders.runtime.read_errors import READ_ERRORS, describe_reason
from transfer.records.statistics_file import FileStamp, StatisticsFile, stamp_file

# A file that changed so recently could change again within the resolution of its times, and keep its stamp.
SETTLED_SECONDS = 2.0

_latest: dict[str, "ref[Array]"] = {}  # by name: records of one split have equal keys, patients and labels


class StoredArrays(Mapping[str, Array]):
    """The arrays of an .npz file by name. Those that were read stay in memory; they cannot be written to."""

    def __init__(self, path: Path, stamp: FileStamp, names: Iterable[str], known: Mapping[str, Array] | None = None):
        """stamp: of the file when it was verified.  known: arrays that were read already."""
        self.path, self.stamp = path, stamp
        self._arrays: dict[str, Array | None] = dict.fromkeys(names) | {name: share_array(name, a) for name, a in (known or {}).items()}

    def __getitem__(self, name: str) -> Array:
        array = self._arrays[name]
        if array is None:
            array = self._arrays[name] = share_array(name, self._read(name))
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def _read(self, name: str) -> Array:
        try:
            with open(self.path, "rb") as raw:
                if stamp_file(raw.fileno()) == self.stamp:
                    return read_members(raw, lambda _: [name])[name]
        except READ_ERRORS as error:
            raise InputError(f"the scores {self.path} can no longer be read ({describe_reason(error)}); run the command again") from error
        raise InputError(f"the scores {self.path} were changed while they were in use; run the command again")


def open_arrays(
    path: Path, statistics: StatisticsFile, choose: Callable[[list[str]], list[str]], verify: Callable[[dict[str, Array]], None]
) -> StoredArrays:
    """The arrays of an .npz file, read and verified unless the file is in the state in which it was verified before.

    choose: the names to read, from those in the file.  verify: raises if the arrays are not those of the record."""
    with open(path, "rb") as raw:
        stamp = stamp_file(raw.fileno())
        names = statistics.verified_names(stamp)
        if names is not None:
            return StoredArrays(path, stamp, names)
        arrays = read_members(raw, choose)
        verify(arrays)
        if stamp_file(raw.fileno()) == stamp and time.time() - stamp.ctime_ns / 1e9 > SETTLED_SECONDS:
            statistics.set_verified(stamp, list(arrays))
    return StoredArrays(path, stamp, arrays, arrays)


def read_members(raw: IO[bytes], choose: Callable[[list[str]], list[str]]) -> dict[str, Array]:
    """The arrays of an open .npz file that `choose` picks from their names. Raises one of READ_ERRORS for a damaged file."""
    return read_npz(raw, choose)


def share_array(name: str, array: Array) -> Array:
    """An array with the same bytes that is in memory already, or this one; read-only, as several records can hold it."""
    array.flags.writeable = False
    last = _latest[name]() if name in _latest else None
    if last is not None and is_same_array(last, array):
        return last
    _latest[name] = ref(array)
    return array


def is_same_array(a: Array, b: Array) -> bool:
    """Whether two arrays have equal types, shapes and bytes."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    one, other = (np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in (a, b))
    return np.array_equal(one, other)
