"""Arrays of a .npz file as memory maps: those of a 224-px file may exceed the memory (pathmnist_224 has 16 GB).

Compressed arrays are first unpacked, in pieces, into a folder that the caller names. What the archive and the headers of its arrays claim
is compared before it is believed, and the checksum of every array is verified once: a memory map shows damaged pixels without an error.
"""

import math
import shutil
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import IO, Literal

import numpy as np

from encoders.ingest.damage import refuse_damaged_file
from encoders.runtime.arrays import Array
from encoders.runtime.files import atomic_write

PIECE, UNPACKED_PIECE = 1 << 20, 1 << 10  # bytes that are read at a time
MAX_RATIO = 1100  # unpacked bytes per packed byte; deflate reaches 1032
MAX_MEMBERS = 1000
Header = tuple[tuple[int, ...], bool, np.dtype[np.generic]]  # shape, Fortran order, dtype


def read_member_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[np.generic]]]:
    """Shape and dtype of the arrays in an archive by name; their values are not read. Raises InputError for a damaged archive."""
    heads = {}
    with refuse_damaged_file(path, ".npz file"), zipfile.ZipFile(path) as archive:
        names = [info.filename for info in archive.infolist() if info.filename.endswith(".npy")]
        if len(set(names)) < len(names):
            raise ValueError(f"two arrays are called {next(name for name in names if names.count(name) > 1)[:99]!r}")
        for name in names[:MAX_MEMBERS]:
            with archive.open(name) as file:
                shape, _, dtype = parse_npy_header(file)
            heads[name.removesuffix(".npy")] = (shape, dtype)
    return heads


def parse_npy_header(file: IO[bytes]) -> Header:
    """The header of an array, whose values follow. Raises ValueError for one that NumPy does not write, and for Python objects."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array has a header of version {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    header: Header = read(file)
    if header[2].hasobject:
        raise ValueError("an array holds Python objects, which are not read")
    if any(side < 0 for side in header[0]):
        raise ValueError(f"an array has the shape {header[0]}")
    return header


def prepare_member(path: Path, member: str, spool: Path) -> None:
    """Verifies the checksum of an array; a compressed one is unpacked into `spool`, and stays there. Raises InputError for damage."""
    with refuse_damaged_file(path, ".npz file"), zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
        if info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise ValueError(f"{member} claims {info.file_size:,} bytes, more than its {info.compress_size:,} packed ones can hold")
        if info.compress_type == zipfile.ZIP_STORED:
            with archive.open(member) as stored:
                while stored.read(PIECE):  # zipfile compares the checksum at the end
                    pass
        elif not unpacked_path(path, info, spool).exists():
            with atomic_write(unpacked_path(path, info, spool)) as part, part.open("wb") as out, archive.open(member) as packed:
                shutil.copyfileobj(packed, out, PIECE)


def unpack_damaged_member(path: Path, member: str, spool: Path) -> None:
    """Unpacks what can be read of a damaged compressed array into `spool`, followed by zeros; one that is not compressed stays as it is."""
    with refuse_damaged_file(path, ".npz file"), zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
    if info.compress_type == zipfile.ZIP_STORED or unpacked_path(path, info, spool).exists():
        return
    inflate, left = zlib.decompressobj(-zlib.MAX_WBITS), info.compress_size
    with atomic_write(unpacked_path(path, info, spool)) as part, part.open("wb") as out, path.open("rb") as file:
        file.seek(values_offset(file, info))
        with suppress(zlib.error):
            while left > 0 and (piece := file.read(min(left, UNPACKED_PIECE))) and out.tell() < info.file_size:
                out.write(inflate.decompress(piece))
                left -= len(piece)
        out.truncate(info.file_size)


def values_offset(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """The byte of the archive at which a member's content begins: its local header repeats the name, with another extra field."""
    file.seek(info.header_offset + 26)
    name, extra = np.frombuffer(file.read(4), "<u2").tolist()
    return int(info.header_offset + 30 + name + extra)


def unpacked_path(path: Path, info: zipfile.ZipInfo, spool: Path) -> Path:
    """The file with an unpacked array; its name has the checksum."""
    return spool / f"{path.stem}.{info.CRC:08x}.{info.filename}"


def memmap_member(path: Path, member: str, spool: Path) -> Array:
    """An array of a .npz as a memory map, after `prepare_member`. Raises InputError if its header claims other bytes than it has."""
    with refuse_damaged_file(path, ".npz file"), zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
        if info.compress_type == zipfile.ZIP_STORED:
            with path.open("rb") as file:
                return memmap_array(path, values_offset(file, info), info.file_size)
        return memmap_array(unpacked_path(path, info, spool), 0, info.file_size)


def memmap_array(path: Path, start: int, size: int) -> Array:
    """The array of `size` bytes with its header at `start` of a file."""
    with path.open("rb") as file:
        file.seek(start)
        shape, fortran, dtype = parse_npy_header(file)
        values = file.tell()
    if (claimed := math.prod(shape) * dtype.itemsize) != (held := start + size - values):
        raise ValueError(f"an array of shape {shape} claims {claimed:,} bytes and has {held:,}")
    order: Literal["F", "C"] = "F" if fortran else "C"
    return np.memmap(path, dtype, "r", values, shape, order) if claimed else np.zeros(shape, dtype)
