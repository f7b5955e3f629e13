"""Archives of NumPy arrays (.npz), read without unpickling and without believing the sizes that they claim.

NumPy allocates what the header of an array claims before it reads the array; here the claim is compared with the archive first. The
checksum of every array is verified.
"""

import math
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.read_errors import READ_ERRORS, describe_reason

MAX_UNPACKED_RATIO = 1100  # bytes per byte of the archive; deflate reaches 1032
END_BYTES = 22  # of the end of a zip archive, which has the number of its entries at byte 10
MAX_ARRAY_DIMENSIONS = 32
STORED_KINDS = "biufcSU"  # of arrays that need no pickle

ChooseNames = Callable[[list[str]], Sequence[str]]


def load_npz(path: Path, advice: str) -> dict[str, Array]:
    """The arrays of a file. Raises InputError that ends with `advice` if it is missing or damaged."""
    try:
        with path.open("rb") as file:
            return read_npz(file)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; {advice}") from error
    except READ_ERRORS as error:
        raise InputError(f"{path} is damaged or is no archive of arrays ({describe_reason(error)}); {advice}") from error


def read_npz(file: IO[bytes], choose: ChooseNames | None = None) -> dict[str, Array]:
    """The arrays of an open .npz file by name.  choose: those to read, from the names in the file; None: all.

    Raises one of READ_ERRORS for a damaged file, and ValueError for arrays of Python objects."""
    size = file.seek(0, 2)
    file.seek(max(size - END_BYTES, 0))
    end = file.read()
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        listed = len(archive.infolist())
        if not end.startswith(b"PK\5\6") or int.from_bytes(end[10:12], "little") != listed or (not listed and size > END_BYTES):
            raise ValueError("its directory does not list all of its arrays")  # zipfile reads a damaged one as if it were shorter
        entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        if len(entries) < len(archive.infolist()):
            raise ValueError("two arrays have the same name")
        wanted = list(entries) if choose is None else choose(list(entries))
        if missing := [name for name in wanted if name not in entries]:
            raise ValueError(f"it has no array {missing[0]!r}")
        return {name: _read_npz_entry(archive, entries[name], size) for name in wanted}


def _read_npz_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, archive_bytes: int) -> Array:
    """One array. Raises ValueError if its header claims other bytes than the archive has for it."""
    if entry.file_size > MAX_UNPACKED_RATIO * archive_bytes:
        raise ValueError(f"{entry.filename} claims {entry.file_size:,} bytes, more than an archive of {archive_bytes:,} can hold")
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{entry.filename} has a header of version {version}")
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        if dtype.kind not in STORED_KINDS and not (dtype.fields and not dtype.hasobject):
            raise ValueError(f"{entry.filename} is an array of {dtype}, which is not read")
        if len(shape) > MAX_ARRAY_DIMENSIONS or any(n < 0 for n in shape):
            raise ValueError(f"{entry.filename} has the shape {shape}")
        claimed = math.prod(shape) * dtype.itemsize
        if claimed > entry.file_size:
            raise ValueError(f"{entry.filename} claims {claimed:,} bytes and has {entry.file_size:,}")
        data = bytearray(file.read())  # to the end, so that the checksum is compared; arrays can be written to
    if claimed != len(data):
        raise ValueError(f"{entry.filename} claims {claimed:,} bytes and has {len(data):,}")
    if not dtype.itemsize:
        return np.zeros(shape, dtype)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
