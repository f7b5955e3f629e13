"""Archives of NumPy arrays (.npz), as tensors."""

import math
import zipfile

import numpy as np

from encoders.importing.inert_record import InertRecord, UnreadableCheckpoint
from encoders.importing.rebuild_values import array_to_tensor


def read_array_archive(archive: zipfile.ZipFile) -> dict[str, object]:
    """The arrays of a .npz file by name: tensors, and records for arrays of Python objects, which are not unpickled.

    Raises UnreadableCheckpoint if an array claims more bytes than its entry has."""
    return {entry.filename.removesuffix(".npy"): _read_array(archive, entry) for entry in archive.infolist()}


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> object:
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(file)
        if dtype.hasobject:
            return InertRecord("numpy.ndarray", ("of Python objects",))
        data = file.read()
    if math.prod(shape) * dtype.itemsize != len(data) or min(shape, default=0) < 0:
        raise UnreadableCheckpoint(f"its array {entry.filename!r} claims {shape} of {dtype} and has {len(data):,} bytes")
    return array_to_tensor(np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C"))
