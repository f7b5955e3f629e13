"""The content of a file of regions, which may be compressed: QuPath exports GeoJSON also as .zip, and its scripts often as .gz."""

import gzip
import io
import zipfile
import zlib
from pathlib import Path

from encoders.ingest.source import Unreadable

GZIP_MAGIC, ZIP_MAGIC = b"\x1f\x8b", b"PK\x03\x04"
MEMBER_SUFFIXES = (".geojson", ".json", ".xml")


def read_region_bytes(path: Path) -> bytes:
    """The bytes of a file, uncompressed; what it is decides, not its name.

    Raises Unreadable if it cannot be read, is empty, is damaged, or is a .zip with several files of regions."""
    try:
        data = path.read_bytes()
        if data.startswith(GZIP_MAGIC):
            data = gzip.decompress(data)
        elif data.startswith(ZIP_MAGIC):
            data = _read_zip(data, path.name)
    except (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile, NotImplementedError, RuntimeError) as error:
        raise Unreadable(f"its regions {path.name} are damaged, or compressed in an unknown way: {error}") from error
    except OSError as error:
        raise Unreadable(f"its regions {path.name} cannot be read: {error.strerror}") from error
    if not data.strip():
        raise Unreadable(f"its regions {path.name} are empty")
    return data


def _read_zip(data: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [each for each in archive.namelist() if each.lower().endswith(MEMBER_SUFFIXES) and not each.startswith("__MACOSX/")]
        if len(members) != 1:
            content = f"holds {len(members)} files of regions{f' ({members[0]}, ...)' if members else ''}"
            raise Unreadable(f"its regions {name} {content}; expected one GeoJSON or ASAP XML")
        return archive.read(members[0])
