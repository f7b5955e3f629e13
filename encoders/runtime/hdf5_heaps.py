"""Global heaps of an HDF5 file, which hold texts of variable length: the library reads one whose free space has no length without an end.

A heap is a collection of objects, each with a header that says how long it is. The next header is looked for after that length. An object
that was freed and has the length 0 is followed by itself.

Source: HDF5 File Format Specification 3.0, section III.E; `H5HG__cache_heap_deserialize` of HDF5 2.0.
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import h5py

HEAP_MAGIC = b"GCOL\x01"
COLLECTION_HEADER, OBJECT_HEADER = struct.Struct("<4sB3xQ"), struct.Struct("<HHIQ")  # with addresses and lengths of 8 bytes
SMALL_FILE = 16 << 20  # bytes; of a larger file, what lies outside its large datasets is searched
LARGE_DATASET = 1 << 20


def check_global_heaps(file: "h5py.File", path: Path) -> None:
    """Raises ValueError for a file with a global heap that HDF5 would read forever."""
    with open(path, "rb") as handle:
        size = handle.seek(0, 2)
        if not size:
            return
        with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for start, end in list_gaps(file, size):
                at = data.find(HEAP_MAGIC, start, end)
                while at >= 0:
                    check_collection(data, at, size)
                    at = data.find(HEAP_MAGIC, at + 1, end)


def check_collection(data: "mmap.mmap | bytes", start: int, size: int) -> None:
    """Raises ValueError for a collection at `start` with an object that the library would not get past.  size: bytes of the file."""
    if start + COLLECTION_HEADER.size > size:
        return
    at, end = start + COLLECTION_HEADER.size, start + COLLECTION_HEADER.unpack_from(data, start)[2]
    while at + OBJECT_HEADER.size <= min(end, size):
        index, _, _, length = OBJECT_HEADER.unpack_from(data, at)
        step = (OBJECT_HEADER.size + -(-length // 8) * 8 if index else length) % 2**64
        if step == 0:
            raise ValueError(f"the heap of texts at byte {start:,} is damaged")
        at += step


def list_gaps(file: "h5py.File", size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of what lies outside the values of large datasets."""
    import h5py

    places: list[tuple[int, int]] = []

    def note_values(_: str, data: object) -> None:
        if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external or data.id.get_storage_size() < LARGE_DATASET:
            return
        if data.chunks is None:
            places.append((data.id.get_offset() or 0, data.id.get_storage_size()))
        else:
            data.id.chunk_iter(lambda chunk: places.append((chunk.byte_offset, chunk.size)))

    if size > SMALL_FILE:
        file.visititems(note_values)
    where = np.array(sorted(places), dtype=np.uint64).reshape(-1, 2)
    starts = [*where[:, 0].tolist(), size]
    ends = [0, *(where[:, 0] + where[:, 1]).tolist()]
    for end, start in zip(ends, starts, strict=True):
        if start - end >= COLLECTION_HEADER.size:
            yield end, start
