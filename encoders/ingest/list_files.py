"""The files below a folder that an ingest reads, those that it skips, and those that nobody can read.

Links without a target, unreadable folders and incomplete downloads are found here for all ingests, so that nothing of a damaged copy is
lost without a word.
"""

import glob
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from encoders.runtime.errors import InputError
from encoders.runtime.files import describe_no_file, walk_files

# Suffixes of a download until it is complete: curl, rclone and the GDC client; Chrome and Edge; Firefox; Opera; WinSCP; Safari; gsutil; ...
PARTIAL_SUFFIXES = {".partial", ".crdownload", ".part", ".tmp", ".temp", ".opdownload", ".filepart", ".download", ".gstmp"}
PARTIAL_SUFFIXES |= {".incomplete", ".unfinished", ".!ut", ".!qb", ".bc!"}
CONTROL_SUFFIXES = (".aria2", ".st")  # a file of aria2 or axel beside an incomplete download, which has its final name
RCLONE_HASH = re.compile(r"(?<=.)\.[0-9a-f]{8}$")  # rclone writes a.png.0a1b2c3d.partial


class BrokenFile(NamedTuple):
    """Something in a folder that cannot be read: it is quarantined."""

    name: str  # relative to the folder, with forward slashes
    reason: str  # completes a sentence that begins with the name


@dataclass(frozen=True)
class FoundFiles:
    """The content of a folder."""

    files: list[Path]  # sorted
    broken: list[BrokenFile]  # sorted by name


class ListedFiles(NamedTuple):
    """The content of a folder for an ingest that reads files with some suffixes."""

    names: list[str]  # sorted, relative to the folder, with forward slashes
    others: Counter[str]  # files with another suffix: suffix -> number
    broken: list[BrokenFile]

    def describe_others(self) -> str:
        """`3 other files, and 2 that cannot be read (first: a.png.part is an incomplete download)`, for a folder without files to read."""
        return join_counts(self.others.total(), self.broken)


def find_files(folder: Path) -> FoundFiles:
    """The files below a folder that are not hidden, each once. Raises InputError if the folder itself cannot be read."""
    broken: dict[str, str] = {}

    def report(path: str, reason: str) -> None:
        broken[Path(path).relative_to(folder).as_posix()] = reason

    every = sorted(walk_files(folder, report))
    if reason := broken.get("."):
        raise InputError(f"{folder} {reason}; check its permissions")
    present, controls = set(every), set[Path]()
    for path in every:
        beside = [control for suffix in CONTROL_SUFFIXES if (control := path.with_name(path.name + suffix)) in present]
        if reason := describe_partial(path):
            report(str(path), reason)
        elif beside:
            controls.add(beside[0])
            report(str(path), f"is an incomplete download: {beside[0].name} stands beside it")
    files = [path for path in every if path not in controls and path.relative_to(folder).as_posix() not in broken]
    return FoundFiles(files, [BrokenFile(*pair) for pair in sorted(broken.items())])


def list_files(folder: Path, suffixes: Iterable[str]) -> ListedFiles:
    """The files with one of the suffixes, the number of the others, and what cannot be read.

    suffixes: in lower case, of one or more parts: .png, .nii.gz.  Raises InputError if the folder itself cannot be read."""
    names, others, wanted, found = [], Counter[str](), tuple(suffixes), find_files(folder)
    for path in found.files:
        if path.suffix and path.name.lower().endswith(wanted):
            names.append(path.relative_to(folder).as_posix())
        else:
            others[path.suffix.lower() or "no suffix"] += 1
    return ListedFiles(sorted(names), others, found.broken)


def describe_partial(path: Path) -> str:
    """That a file is an incomplete download, by its name; "" if it is not."""
    if path.suffix.lower() in PARTIAL_SUFFIXES:
        return f"is an incomplete download ({path.suffix}): finish it, or remove it"
    if path.parent.name.lower() == f"{path.name.lower()}.download":  # Safari's folder a.png.download/a.png
        return "is an incomplete download in a folder of Safari: finish it, or remove it"
    return ""


def strip_partial_suffix(name: str) -> str:
    """The name that a download gets when it is complete."""
    suffix = Path(name).suffix
    return RCLONE_HASH.sub("", name.removesuffix(suffix)) if suffix.lower() in PARTIAL_SUFFIXES else name


def describe_bad_file(path: Path) -> str:
    """Why a file that the user named cannot be complete: it is missing, no file, empty or an incomplete download; "" if it may be."""
    if problem := describe_no_file(path) or describe_partial(path):
        here = [p for suffix in sorted(PARTIAL_SUFFIXES) if (p := path.with_name(path.name + suffix)).exists()]
        return f"{problem}, but {here[0].name} does, an incomplete download" if here and problem == "does not exist" else problem
    return "is empty (0 bytes)" if path.stat().st_size == 0 else ""


def match_downloads(pattern: str) -> list[Path]:
    """The incomplete downloads of files that a shell pattern matches: `a.h5.part` for `*.h5`; [] for a path."""
    names = glob.glob(pattern + ".*", recursive=True) if glob.has_magic(pattern) else []
    return [Path(name) for name in sorted(names) if Path(name).suffix.lower() in PARTIAL_SUFFIXES]


def join_counts(others: int, broken: list[BrokenFile]) -> str:
    """The number of other files, and that of broken ones with the first of them."""
    lost = f", and {len(broken)} that cannot be read (first: {' '.join(broken[0])})" if broken else ""
    return f"{others} other files{lost}"


def describe_skipped(others: Mapping[str, int]) -> list[str]:
    """Sentences about skipped files.  others: kind -> number of files."""
    return [f"{n} files skipped: {kind}" for kind, n in sorted(others.items())]


def count_skipped(others: Mapping[str, int]) -> dict[str, int]:
    """Skipped files as reasons for the balance of an ingest.  others: kind -> number of files."""
    return {f"skipped: {kind}": n for kind, n in sorted(others.items())}
