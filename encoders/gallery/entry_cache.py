"""Entries of the overview that did not change since it was last written: their files are looked at, not read.

The cache is a file in the cache folder that can be deleted at any time. One that is damaged, or of another version, is ignored.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from encoders.gallery.entries import UNREADABLE, EntryKind, GalleryEntry, Link
from encoders.runtime.files import write_json

VERSION_OF_ENTRIES = 3  # raised when the same files give other entries


class EntryCache:
    """Entries by kind and name, each with the stamps of the files that it was read from."""

    def __init__(self, path: Path):
        self.path = path
        self.known: dict[str, Any] = {}
        self.kept: dict[str, Any] = {}
        with suppress(*UNREADABLE):
            content = json.loads(path.read_text())
            self.known = content["entries"] if content["version"] == VERSION_OF_ENTRIES else {}

    def find(self, kind: EntryKind, folder: Path, stamps: Sequence[Sequence[int]]) -> GalleryEntry | None:
        """The entry of a folder whose files have these stamps; None if it must be read."""
        try:
            kept = self.known[f"{kind}/{folder.name}"]
            if kept["stamps"] != stamps:
                return None
            fields = dict(kept["entry"])
            links = [Link(text, target if isinstance(target, str) else (target[0], target[1])) for text, target in fields.pop("links")]
            details = [(key, value) for key, value in fields.pop("details")]
            numbers = dict(fields.pop("numbers"))
            entry = GalleryEntry(**fields, numbers=numbers, links=links, details=details)
        except UNREADABLE:
            return None
        self.kept[f"{kind}/{folder.name}"] = kept
        return entry

    def keep(self, entry: GalleryEntry, folder: Path, stamps: Sequence[Sequence[int]]) -> None:
        """Remembers an entry that was read."""
        fields = asdict(entry) | {"numbers": list(entry.numbers.items())}  # pairs, whose order is that of the columns
        self.kept[f"{entry.kind}/{folder.name}"] = {"stamps": stamps, "entry": fields}

    def save(self) -> None:
        """Writes the cache, if an entry was read, or is gone; an error leaves it as it was."""
        if self.kept != self.known:
            with suppress(*UNREADABLE):
                write_json(self.path, {"version": VERSION_OF_ENTRIES, "entries": self.kept})


def cache_file(cache: Path, home: Path) -> Path:
    """The cache of a working folder: several may share a cache folder."""
    return cache / "overview" / f"{hashlib.sha256(str(home).encode()).hexdigest()[:16]}.json"


def stamp_files(folder: Path, names: Sequence[str]) -> list[list[int]]:
    """Size and time of the folder itself, which changes with the names in it, and of these files; zeros for one that does not exist."""
    stamps = []
    for path in (folder, *(folder / name for name in names)):
        try:
            found = os.stat(path)
            stamps.append([found.st_size, found.st_mtime_ns])
        except OSError:
            stamps.append([0, 0])
    return stamps
