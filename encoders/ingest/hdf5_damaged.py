"""A row of a dataset in HDF5 whose chunk is damaged: as far as its filters can be undone, without their checksums.

Shapes: the row of the dataset.  Source: HDF5 file format specification, filter pipeline; filters 1 deflate, 2 shuffle, 3 fletcher32.
"""

import math
from collections.abc import Sequence
from itertools import product

import h5py
import numpy as np

from encoders.ingest.damage import report_damage
from encoders.ingest.hdf5_reading import CHECKSUM_BYTES, read_row
from encoders.ingest.source import Remark, Unreadable
from encoders.ingest.zlib_check import inflate_available
from encoders.runtime.arrays import Array
from encoders.runtime.read_errors import READ_ERRORS

DEFLATE, SHUFFLE, FLETCHER32 = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32


def read_accepted_row(data: h5py.Dataset, i: int, accept_damaged: bool) -> tuple[Array, list[Remark]]:
    """Row `i`, and a remark if its chunk is damaged. Raises Unreadable for a damaged one unless it is accepted."""
    try:
        return read_row(data, i), []
    except Unreadable as error:
        remark = report_damage(str(error).removesuffix("; copy the file again"), accept_damaged)
    return read_damaged_row(data, i), [remark]


def read_damaged_row(data: h5py.Dataset, i: int) -> Array:
    """Row `i` of a chunked dataset; what cannot be read is 0. Raises Unreadable for other filters, and if nothing of it can be read."""
    plist = data.id.get_create_plist()
    filters = [plist.get_filter(k)[0] for k in range(plist.get_nfilters())]
    if data.chunks is None or not set(filters) <= {DEFLATE, SHUFFLE, FLETCHER32}:
        raise Unreadable(f"is broken: its {data.name.lstrip('/')!r} cannot be read")
    row, found = np.zeros(data.shape[1:], data.dtype), 0
    first = i // data.chunks[0] * data.chunks[0]
    for corner in product(*(range(0, n, c) for n, c in zip(data.shape[1:], data.chunks[1:], strict=True))):
        try:
            mask, packed = data.id.read_direct_chunk((first, *corner))
        except READ_ERRORS:
            continue  # this part of the row stays 0
        content = undo_filters(packed, [name for k, name in enumerate(filters) if not mask >> k & 1], data.dtype.itemsize)
        size = math.prod(data.chunks) * data.dtype.itemsize
        found += len(content) > 0
        chunk = np.frombuffer(content[:size].ljust(size, b"\0"), data.dtype).reshape(data.chunks)
        inside = tuple(slice(at, at + c) for at, c in zip(corner, data.chunks[1:], strict=True))
        part = row[inside]
        part[...] = chunk[(i - first, *(slice(0, n) for n in part.shape))]
    if not found:
        raise Unreadable(f"is broken: nothing of its {data.name.lstrip('/')!r} can be read")
    return row


def undo_filters(packed: bytes, filters: Sequence[int], itemsize: int) -> bytes:
    """The content of a chunk. filters: in the order in which they were applied."""
    for name in reversed(filters):
        if name == FLETCHER32:
            packed = packed[:-CHECKSUM_BYTES]
        elif name == DEFLATE:
            packed = inflate_available(packed)
        elif itemsize > 1:
            whole = len(packed) // itemsize
            packed = np.frombuffer(packed, np.uint8, whole * itemsize).reshape(itemsize, whole).T.tobytes()
    return packed
