"""What is wrong with a zip archive, as `torch.save` writes it, before anything in it is believed.

PyTorch writes a CRC-32 for each record and does not verify it, takes the last of two records of one name, and allocates the size that a
record claims.
"""

import zipfile
from pathlib import Path


def find_zip_damage(path: Path) -> str:
    """What is damaged in an archive, as the end of a sentence; "" if all its records are intact.

    Raises one of READ_ERRORS for a file that is no zip archive."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(set(names)) < len(names):
            return f"two of its records are called {next(name for name in names if names.count(name) > 1)!r}"
        for entry in archive.infolist():
            if entry.compress_type == zipfile.ZIP_STORED and entry.file_size > size:
                return f"its record {entry.filename!r} claims {entry.file_size:,} bytes, and the file has {size:,}"
        damaged = archive.testzip()
    return "" if damaged is None else f"the checksum of its record {damaged!r} does not match"
