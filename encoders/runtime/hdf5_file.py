"""HDF5 files that are written whole or not at all, also when the disk refuses a write.

The HDF5 library tries a write that failed again, whenever an object or the file is closed; it prints an error each time, and may crash in
`H5Fclose` (seen with HDF5 1.14 and a limit on the size of files). So it writes through a Python file, which raises once; from then on,
what nobody wants any more is thrown away, and the library closes the file in peace.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import Buffer

from encoders.runtime.files import atomic_write

if TYPE_CHECKING:
    import h5py


class _OutputFile(io.FileIO):
    """A file whose first failed write raises, and whose later ones are thrown away.

    failure: of the first write. The library may raise another exception in its place, e.g. when it flushes while this one is on its way."""

    failure: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        """All bytes of `data` or an error: the system may take a part, and say at the next write why."""
        left = memoryview(data).cast("B")
        size = len(left)
        while left and self.failure is None:
            with self._note_failure():
                left = left[super().write(left) :]
        return size

    def truncate(self, size: int | None = None, /) -> int:
        if self.failure is None:
            with self._note_failure():
                return super().truncate(size)
        return 0

    @contextmanager
    def _note_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = error
            raise


@contextmanager
def atomic_hdf5(path: str | Path, **options: object) -> "Iterator[h5py.File]":
    """Yields an open HDF5 file that becomes `path` when the block succeeds; see `atomic_write`.  options: of `h5py.File`."""
    import h5py

    with atomic_write(path) as part, _OutputFile(os.fspath(part), "w+") as output:
        try:
            with h5py.File(output, "w", **options) as file:
                yield file
        except Exception as error:
            if output.failure is None or error is output.failure:
                raise
            raise output.failure from error
        if output.failure is not None:
            raise output.failure
