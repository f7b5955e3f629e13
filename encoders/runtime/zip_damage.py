"""What is wrong with a zip archive, as `torch.save` writes it, before anything in it is believed.

PyTorch writes a CRC-32 for each record and does not verify it, takes the last of two records of one name, and allocates the size that a
record claims.
"""

import zipfile
from pathlib import Path

RECORD_CHUNK_BYTES = 1 << 20
DIRECTORY_ATTRIBUTE = 0x10  # of MS-DOS: PyTorch reads nothing of such a record, and returns memory that it never wrote


def find_zip_damage(path: Path) -> str:
    """What is damaged in an archive, as the end of a sentence; "" if all its records are intact.

    Raises one of READ_ERRORS for a file that is no zip archive."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(set(names)) < len(names):
            return f"two of its records are called {next(name for name in names if names.count(name) > 1)!r}"
        for entry in archive.infolist():
            if entry.compress_type == zipfile.ZIP_STORED and not entry.compress_size == entry.file_size <= size:
                return f"its record {entry.filename!r} claims {entry.file_size:,} of {entry.compress_size:,} bytes; the file has {size:,}"
            if entry.external_attr & DIRECTORY_ATTRIBUTE or entry.is_dir():
                return f"its record {entry.filename!r} is marked as a folder"
            if problem := _read_record(archive, entry):
                return problem
    return ""


def _read_record(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> str:
    """What is wrong with the bytes of a record; "" if their number and their checksum are those that the archive states."""
    count = 0
    try:
        with archive.open(entry) as record:
            while chunk := record.read(RECORD_CHUNK_BYTES):
                count += len(chunk)
    except zipfile.BadZipFile as error:
        return f"its record {entry.filename!r} is not what was written ({' '.join(str(error).split())[:120]})"
    return "" if count == entry.file_size else f"its record {entry.filename!r} claims {entry.file_size:,} bytes and has {count:,}"
