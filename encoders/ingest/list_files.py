"""The files below a folder that an ingest reads, and those that it skips."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from encoders.runtime.files import walk_files


def list_files(folder: Path, suffixes: Iterable[str]) -> tuple[list[str], Counter[str]]:
    """The files with one of the suffixes as sorted relative names, and the number of other files by suffix.

    suffixes: in lower case, of one or more parts: .png, .nii.gz."""
    files, others, wanted = [], Counter[str](), tuple(suffixes)
    for path in walk_files(folder):
        if path.suffix and path.name.lower().endswith(wanted):
            files.append(path.relative_to(folder).as_posix())
        else:
            others[path.suffix.lower() or "no suffix"] += 1
    return sorted(files), others


def describe_skipped(others: Mapping[str, int]) -> list[str]:
    """Sentences about skipped files.  others: kind -> number of files."""
    return [f"{n} files skipped: {kind}" for kind, n in sorted(others.items())]


def count_skipped(others: Mapping[str, int]) -> dict[str, int]:
    """Skipped files as reasons for the balance of an ingest.  others: kind -> number of files."""
    return {f"skipped: {kind}": n for kind, n in sorted(others.items())}
