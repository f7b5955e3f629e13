"""Names of slides: of their stores, thumbnails and rows. They are unique on any file system, and no name costs the cohort."""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from encoders.runtime.entry_names import is_invisible
from encoders.runtime.file_names import MAX_NAME_BYTES, add_name_hash, shorten_file_name, to_unicode

GDC_FOLDER = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)  # a UUID, around each file of gdc-client
RESERVED_NAMES = {"lock", "anew"}  # of the files in OUT_DIR/.work


@dataclass(frozen=True)
class NameChoice:
    """The names that a slide may get; later ones are used if earlier ones are not unique."""

    source: str  # relative path
    plain: str | None  # without the folder of the GDC, None if there is none
    others: tuple[str, ...]  # relative path without suffix, with suffix, with a hash

    @property
    def names(self) -> tuple[str, ...]:
        return self.others if self.plain is None else (self.plain, *self.others)

    def at(self, step: int) -> str:
        return shorten_file_name(self.names[step])

    @property
    def last(self) -> int:
        return len(self.names) - 1


def name_slides(paths: Iterable[Path], root: Path, folders: Mapping[Path, Path], notes: list[str]) -> dict[str, Path]:
    """Slide name -> path, sorted: the relative path with `__` for `/`, without suffix, and without the UUID folder of gdc-client.

    Names that differ only in case or in their Unicode form count as equal, as they do on macOS and Windows. Equal names get the UUID, else
    the suffix, else a hash of the path. Names of more than MAX_NAME_BYTES are cut and get a hash too. What was changed is added to `notes`.
    folders: slide -> folder that names it better than its file."""
    choices = {path: list_names(path, root, folders.get(path)) for path in paths}
    step = dict.fromkeys(choices, 0)
    while movable := [path for group in find_equal(choices, step) for path in to_rename(group, choices, step)]:
        for path in movable:
            step[path] += 1
    notes.extend(describe_names(choices, step))
    return dict(sorted((choices[path].at(k), path) for path, k in step.items()))


def list_names(path: Path, root: Path, folder: Path | None) -> NameChoice:
    """The names that a slide may get.  folder: the one that names it, None: its file does."""
    source = path.relative_to(root).as_posix()
    stem = (folder or path.with_suffix("")).relative_to(root)
    plain = None
    if folder is None and GDC_FOLDER.fullmatch(stem.parent.name):
        plain = flatten_path(stem.parent.parent / stem.name)
    full = flatten_path(stem), flatten_path(path.relative_to(root))
    return NameChoice(source, plain, (*full, add_name_hash(full[0], os.fsencode(source))))


def flatten_path(path: Path) -> str:
    """The path with `__` for `/`, and `_` for what a name of a file or a word of a command cannot be: characters that are not seen, and a
    dash or a dot at the beginning."""
    flat = path.as_posix().replace("/", "__")
    seen = "".join("_" if is_invisible(c) and not "\udc80" <= c <= "\udcff" else c for c in flat)  # those are bytes that are not UTF-8
    return f"_{seen}" if seen[:1] in ("-", ".") else seen


def find_equal(choices: Mapping[Path, NameChoice], step: Mapping[Path, int]) -> Iterator[list[Path]]:
    """Groups of slides whose names are equal on some file system; a reserved name is a group of its own."""
    groups: dict[str, list[Path]] = {}
    for path, k in step.items():
        groups.setdefault(unicodedata.normalize("NFC", choices[path].at(k)).casefold(), []).append(path)
    yield from (group for name, group in groups.items() if len(group) > 1 or name in RESERVED_NAMES)


def to_rename(group: list[Path], choices: Mapping[Path, NameChoice], step: Mapping[Path, int]) -> list[Path]:
    """The slides of a group that get their next name: those without the UUID of their folder, else all. The last name is a hash."""
    without = [path for path in group if choices[path].plain is not None and step[path] == 0]
    return without or [path for path in group if step[path] < choices[path].last]


def describe_names(choices: Mapping[Path, NameChoice], step: Mapping[Path, int]) -> list[str]:
    """Sentences about names that are not the relative path."""

    def first(paths: list[Path]) -> str:
        return f"(first: {to_unicode(choices[paths[0]].source)} is called {choices[paths[0]].at(step[paths[0]])})"

    gdc = [path for path in choices if choices[path].plain is not None]
    short = [path for path in gdc if step[path] == 0]
    kept = [path for path in gdc if step[path] > 0]
    hashed = [path for path in choices if step[path] == choices[path].last]
    long = [path for path in choices if is_cut(choices[path], step[path]) and path not in hashed]
    return [
        *([f"{len(short)} slides are called by their file, without the UUID folder of the GDC {first(short)}"] if short else []),
        *([f"{len(kept)} slides keep the UUID of their folder: their file names are not unique {first(kept)}"] if kept else []),
        *([f"{len(hashed)} slides have a hash in their name, which would not be unique otherwise {first(hashed)}"] if hashed else []),
        *([f"{len(long)} names of slides exceed {MAX_NAME_BYTES} bytes and are cut, with a hash {first(long)}"] if long else []),
    ]


def is_cut(choice: NameChoice, step: int) -> bool:
    """Whether a name was too long."""
    return choice.at(step) != to_unicode(choice.names[step])
