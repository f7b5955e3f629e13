"""What was computed from a record before, in one file per record: `.statistics/NAME.json` beside the record.

The file can be deleted at any time. It is ignored when it is damaged, belongs to another version of the record or was written by other
code. Writes are atomic. Of two processes that write at once, one can lose its results, which are then computed again. Where the folder of
the record cannot be written, the file is in the cache of the working folder; where that cannot be written either, nothing is kept.
"""

import hashlib
import json
import os
import platform
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from encoders.runtime.files import process_tag
from encoders.runtime.json_types import Json
from encoders.runtime.paths import cache_dir

FOLDER = ".statistics"  # hidden, so that its files are not taken for records
MOST_BYTES = 8_000_000  # of a file; beyond, results that this process did not use are dropped
# The code that results depend on, relative to the packages. A change of any file makes all results be computed again.
SOURCES = (
    "transfer/metrics",
    "transfer/records",
    "transfer/report",
    "transfer/stats",
    "transfer/tables",
    "transfer/tasks",
    "encoders/runtime",
)


_changed: "dict[int, StatisticsFile]" = {}  # files with results that are not on disk yet


class FileStamp(NamedTuple):
    """Identifies one state of a file: every write changes its ctime, which no program can set back."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


def stamp_file(descriptor: int) -> FileStamp:
    """The stamp of an open file."""
    s = os.fstat(descriptor)
    return FileStamp(s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino)


@cache
def code_digest() -> str:
    """32 hex digits of the source and of the versions of the libraries that results depend on."""
    import numpy
    import scipy

    total = hashlib.sha256()
    root = Path(__file__).parents[2]
    for path in sorted(p for folder in SOURCES for p in (root / folder).rglob("*.py")):
        total.update(f"{path.relative_to(root)} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    total.update(f"{version('isograft')} {platform.python_version()} {numpy.__version__} {scipy.__version__}".encode())
    return total.hexdigest()[:32]


class StatisticsFile:
    """The results of one record, read from disk when they are first needed; `save_results` writes new ones."""

    def __init__(self, record: Path, digest: str):
        """record: its JSON file.  digest: of that file, which covers its arrays."""
        self.record, self.digest = record, digest
        self.paths = (record.parent / FOLDER / record.name, cache_dir() / "statistics" / f"{digest[:32]}.json")
        self._verified: list[Json] | None = None  # stamp and names of the arrays
        self._results: dict[str, Json] | None = None
        self._used: set[str] = set()

    def verified_names(self, stamp: FileStamp) -> list[str] | None:
        """The names of the arrays in the .npz file if it was verified in this state; else None."""
        self._read()
        match self._verified:
            case [list(known), list(names)] if known == list(stamp):
                return [str(name) for name in names]
        return None

    def set_verified(self, stamp: FileStamp, names: list[str]) -> None:
        """Notes that the arrays have the digest of the record while their file has this stamp."""
        self._read()
        self._verified = [list(stamp), list(names)]
        _changed[id(self)] = self

    def get(self, key: str) -> tuple[bool, Json]:
        """Whether there is a result, and the result."""
        results = self._read()
        self._used.add(key)
        return key in results, results.get(key)

    def put(self, key: str, value: Json) -> None:
        """Adds a result, or replaces it."""
        self._read()[key] = value
        self._used.add(key)
        _changed[id(self)] = self

    def save(self) -> None:
        """Writes the results to disk, together with those that another process has written meanwhile. Never fails."""
        if self._results is None or not self.record.is_file():  # the record was deleted meanwhile
            return
        for path in self.paths:
            stored = self._load(path)
            results = (stored["results"] if stored and isinstance(stored["results"], dict) else {}) | self._results
            content = {"record": self.digest, "code": code_digest(), "verified": self._verified, "results": results}
            text = json.dumps(content, separators=(",", ":"))
            if len(text) > MOST_BYTES:
                kept = {key: value for key, value in results.items() if key in self._used}
                text = json.dumps({**content, "results": kept}, separators=(",", ":"))
            with suppress(OSError):
                _write(path, text)
                return

    def _read(self) -> dict[str, Json]:
        if self._results is None:
            self._results = {}
            for path in self.paths:
                content = self._load(path)
                if content is not None:
                    verified, results = content["verified"], content["results"]
                    self._verified = verified if isinstance(verified, list) else None
                    self._results = results if isinstance(results, dict) else {}
                    break
        return self._results

    def _load(self, path: Path) -> dict[str, Json] | None:
        """The content of a file that is intact and of this record; results of other code are left out."""
        try:
            digest, _, text = path.read_text(encoding="utf-8").partition("\n")
            content = json.loads(text) if digest == hashlib.sha256(text.encode()).hexdigest() else None
        except (OSError, ValueError):
            return None
        if not isinstance(content, dict) or set(content) != {"record", "code", "verified", "results"} or content["record"] != self.digest:
            return None
        return content if content["code"] == code_digest() else {**content, "results": {}}


def save_results() -> None:
    """Writes all new results to their files. Never fails: what cannot be written is computed again."""
    while _changed:
        _changed.popitem()[1].save()


def _write(path: Path, text: str) -> None:
    """Replaces a file. It is not flushed to disk: after a crash, its checksum shows whether it is whole."""
    part = path.with_name(f".{path.name}.{process_tag()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        part.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}", encoding="utf-8")
        os.replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
