"""All entries of a working folder."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from encoders.gallery.bench_entries import read_bench_entry, read_headlines, read_task_entries
from encoders.gallery.encoder_entries import read_encoder_entry
from encoders.gallery.entries import UNREADABLE, EntryKind, GalleryEntry, describe_error
from encoders.gallery.entry_cache import EntryCache, cache_file, stamp_files
from encoders.gallery.relate import relate_entries
from encoders.gallery.run_entries import read_run_entry
from encoders.runtime.paths import cache_dir


class EntryFolder(NamedTuple):
    """Where the entries of one kind are.

    folder: below the working folder, with one sub-folder per entry.  marks: files of which each entry has one.
    files: all that its entry depends on."""

    kind: EntryKind
    folder: str
    marks: Sequence[str]
    files: Sequence[str]
    read: Callable[[Path, Path], GalleryEntry]


# In the order of the page.
ENTRY_FOLDERS = (
    EntryFolder("run", "runs", ("run.json", "jobs.txt"), ("run.json", "jobs.txt", "metrics.jsonl", "config.yaml"), read_run_entry),
    EntryFolder("encoder", "zoo", ("card.yaml",), ("card.yaml",), read_encoder_entry),
    EntryFolder("bench", "benches", ("bench.json",), ("bench.json", "status", "table.md", "report.html"), read_bench_entry),
)


def read_entries(home: Path) -> list[GalleryEntry]:
    """Everything below a working folder that the overview lists: newest first within each kind."""
    cache = EntryCache(cache_file(cache_dir(), home))
    found = []
    for where in ENTRY_FOLDERS:
        found += newest_first(read_folders(where, home, cache))
    cache.save()  # before entries are completed by others, on which the cache does not depend
    headlines: list[tuple[str, dict[str, Any]]] = []
    with suppress(*UNREADABLE):  # listed as unreadable below
        headlines = read_headlines(home / "records")
    relate_entries(found, headlines)
    return found + newest_first(read_task_entries(home / "records", home))


def newest_first(entries: Iterator[GalleryEntry]) -> list[GalleryEntry]:
    """The entries by the time of their last change; by name where it is the same."""
    return sorted(entries, key=lambda entry: (-entry.changed, entry.name))


def read_folders(where: EntryFolder, home: Path, cache: EntryCache) -> Iterator[GalleryEntry]:
    """The entries of one kind. Hidden folders are unfinished and left out; one that cannot be read has the reason as its status."""
    try:
        folders = [path for path in (home / where.folder).iterdir() if not path.name.startswith(".")]
    except OSError:
        return
    for folder in folders:
        if not any((folder / mark).is_file() for mark in where.marks):
            continue
        stamps = stamp_files(folder, where.files)
        entry = cache.find(where.kind, folder, stamps)
        if entry is None:
            try:
                entry = where.read(folder, home)
            except UNREADABLE as error:
                entry = GalleryEntry(where.kind, folder.name, f"unreadable: {describe_error(error, folder.parent)}", "bad", steady=False)
            if entry.steady:
                cache.keep(entry, folder, stamps)
        yield entry
