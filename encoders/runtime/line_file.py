"""A file to which whole lines are appended: a line that the disk takes only in part is taken back."""

import os
from contextlib import suppress
from io import FileIO

from encoders.runtime.storage_errors import explain_storage_errors


def append_line(file: FileIO, line: str, lost: str) -> None:
    """Appends `line` and a line feed to a file that is open for appending without a buffer.

    lost: what the line is, for the sentence. Raises StorageError when the storage refuses it; the file is then as before."""
    data, before = line.encode() + b"\n", os.fstat(file.fileno()).st_size
    with explain_storage_errors(str(file.name), lost, "all earlier lines are intact"):
        try:
            written = 0
            while written < len(data):  # a disk that becomes full first takes a part, and refuses the rest
                written += file.write(data[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(file.fileno(), before)
            raise
