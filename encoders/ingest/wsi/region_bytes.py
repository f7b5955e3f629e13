"""The content of a file of regions, which may be compressed: QuPath exports GeoJSON also as .zip, and its scripts often as .gz."""

import gzip
import io
import zipfile
from pathlib import Path

from encoders.ingest.source import Unreadable
from encoders.runtime.files import read_at_most
from encoders.runtime.read_errors import READ_ERRORS, describe_reason

GZIP_MAGIC, ZIP_MAGIC = b"\x1f\x8b", b"PK\x03\x04"
MAX_REGION_BYTES = 1 << 29  # bytes; regions of a million cells have some 200 MB
MEMBER_SUFFIXES = (".geojson", ".json", ".xml")


def read_region_bytes(path: Path) -> bytes:
    """The bytes of a file, uncompressed; what it is decides, not its name.

    Raises Unreadable if it cannot be read, is empty, is damaged, or is a .zip with several files of regions."""
    try:
        data = path.read_bytes()
        if data.startswith(GZIP_MAGIC):
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                data = read_at_most(file, MAX_REGION_BYTES + 1)
        elif data.startswith(ZIP_MAGIC):
            data = _read_zip(data, path.name)
    except Unreadable:
        raise
    except READ_ERRORS as error:
        if isinstance(error, OSError) and error.errno:
            raise Unreadable(f"its regions {path.name} cannot be read: {error.strerror}") from error
        raise Unreadable(f"its regions {path.name} are damaged, or compressed in an unknown way: {describe_reason(error)}") from error
    if len(data) > MAX_REGION_BYTES:
        raise Unreadable(f"its regions {path.name} have more than {MAX_REGION_BYTES >> 20} MB when they are unpacked; unpack them yourself")
    if not data.strip():
        raise Unreadable(f"its regions {path.name} are empty")
    return data


def _read_zip(data: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [each for each in archive.namelist() if each.lower().endswith(MEMBER_SUFFIXES) and not each.startswith("__MACOSX/")]
        if len(members) != 1:
            content = f"holds {len(members)} files of regions{f' ({members[0]}, ...)' if members else ''}"
            raise Unreadable(f"its regions {name} {content}; expected one GeoJSON or ASAP XML")
        with archive.open(members[0]) as member:
            return read_at_most(member, MAX_REGION_BYTES + 1)
