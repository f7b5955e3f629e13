"""Finds the files that a table names: by relative, absolute, Windows or prefixed path, by file name, or by name without suffix.

A relative path may also begin in the folder of the table. Otherwise a path matches by its longest end that exactly one file has. That is a
guess where both the path and the file have other folders in front, so it is refused if another path of the table ends in the same way, or
if the folder that the path names exists elsewhere.
"""

import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

SUFFIX = re.compile(r"(?<=.)\.[A-Za-z][A-Za-z0-9]{1,7}$")  # `.png`, `.dicom`; not the last number of a UID
CONVERTED_SUFFIX = re.compile(r"(?<=.)\.(dcm|dicom|nii|ome|png|jpe?g|tiff?|svs)$", re.IGNORECASE)  # `scan.dcm` of `scan.dcm.png`
ODD_CHARACTERS = set("\\: \t")  # without them, a path needs no change
SPLIT_FOLDERS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
INSIDE, WHOLE, GUESS = 0, 1, 2  # ranks: the path is an end of the file's; it ends with all of the file's; both have other folders in front
Parts = tuple[str, ...]  # the folders and the name of a path


@dataclass(frozen=True)
class FileMatches:
    """Which file each value of a table names.

    files: value -> file.  reasons: value -> why it names no single file, where that is more than "there is no such file".
    by_end: the values of `files` that match only by the end of their path, after different folders."""

    files: dict[str, str]
    reasons: dict[str, str] = field(default_factory=dict)
    by_end: list[str] = field(default_factory=list)

    def find(self, value: str) -> str:
        """The file; the value itself, as a relative path, if there is none."""
        return self.files.get(value) or clean_path(value)


class FileFinder:
    """The files in which names are looked up."""

    def __init__(self, files: Sequence[str], root: str = "", beside: Iterable[str] = ()):
        """files: paths relative to `root`, with forward slashes.  root: absolute path of their folder, "" if unknown.

        beside: absolute folders of the tables: a relative path that is none of `root` may begin there."""
        self.files, self.root = list(files), root.rstrip("/") + "/" if root else ""
        self.beside = list(beside) if root else []
        self.exact = {clean_path(name): name for name in files}
        self.depth = max((name.count("/") + 1 for name in self.exact), default=0)
        self._ends: dict[Callable[[str], str], dict[Parts, list[str]]] = {}

    @cached_property
    def folders(self) -> set[str]:
        """The names of all folders that hold files, at any depth."""
        return {part for folder in {name.rpartition("/")[0] for name in self.files} for part in folder.split("/")}

    def match(self, values: Iterable[str]) -> FileMatches:
        """The file of every value that names one."""
        found, reasons = dict[str, str](), dict[str, str]()
        claims: dict[str, list[tuple[str, int]]] = defaultdict(list)  # file -> values that name it, with the rank of the match
        for value in dict.fromkeys(values):
            path = clean_path(value)
            if (name := self._exactly(path)) is not None:
                found[value] = name
                claims[name].append((value, INSIDE))
            elif path and (hit := self._longest_end(path)) is not None:
                names, rank = hit
                if len(names) == 1:
                    found[value] = names[0]
                    claims[names[0]].append((value, rank))
                else:  # `_after_prefix` may still know the folder
                    reasons[value] = describe_same_names(path, names) if rank == INSIDE else ""
        whole = [(value, name) for name, claimed in claims.items() for value, rank in claimed if rank == WHOLE]
        prefixes = self._prefixes(whole) if reasons else set[str]()
        for value in list(reasons):
            if (name := self._after_prefix(value, prefixes)) is not None:
                found[value] = name
                del reasons[value]
        self._refuse_conflicts(found, reasons, claims)
        by_end = [value for claimed in claims.values() for value, rank in claimed if rank == GUESS and value in found]
        return FileMatches(found, {v: text for v, text in reasons.items() if text}, by_end)

    def _exactly(self, path: str) -> str | None:
        found = self.exact.get(path.removeprefix(self.root)) or self.exact.get(path) if self.root else self.exact.get(path)
        return found or self._beside_table(path)

    def _beside_table(self, path: str) -> str | None:
        """The file that a path names from the folder of a table: `../images/a.png`, or `a.png` where other folders have one too."""
        ends = [posixpath.normpath(f"{folder}/{path}") for folder in self.beside if path and not path.startswith("/")]
        names = {self.exact.get(end.removeprefix(self.root)) for end in ends if end.startswith(self.root)} - {None}
        return names.pop() if len(names) == 1 else None

    def _longest_end(self, path: str) -> tuple[list[str], int] | None:
        """The files with the longest end of the path, and the rank of the match; None if no file has any."""
        parts = tuple(part for part in path.split("/") if part)
        for change in (str, stem_of, str.casefold, folded_stem):
            changed, ends = change_name(parts, change), self._index(change)
            k = next((k for k in range(max(0, len(changed) - self.depth), len(changed)) if changed[k:] in ends), None)
            if k is None:
                continue
            names = ends[changed[k:]]
            if k == 0:
                return names, INSIDE
            if len(names) == 1 and names[0].count("/") == len(parts) - k - 1:
                return names, WHOLE
            if self._may_guess(names, parts[k - 1], len(parts) - k):
                return names, GUESS
        return None

    def _may_guess(self, names: list[str], folder: str, length: int) -> bool:
        """Whether a path may mean files with the same end of `length` parts: not if its folder before that end is known to be another."""
        if any(name.count("/") + 1 == length for name in names):
            return True
        theirs = {split_path(name)[-length - 1].casefold() for name in names[:2]}
        return folder not in self.folders and not (folder.casefold() in SPLIT_FOLDERS and theirs & SPLIT_FOLDERS)

    def _index(self, change: Callable[[str], str]) -> dict[Parts, list[str]]:
        """Every end of every path -> its files, of names changed by `change`."""
        if change not in self._ends:
            ends: dict[Parts, list[str]] = {}
            for name in self.files:
                parts = change_name(split_path(name), change)
                for k in range(len(parts)):
                    ends.setdefault(parts[k:], []).append(name)
            self._ends[change] = ends
        return self._ends[change]

    def _prefixes(self, whole: Sequence[tuple[str, str]]) -> set[str]:
        """What paths of the table have in front of the whole relative path of their file, e.g. `/data/images/`."""
        out = set[str]()
        for value, name in whole:
            path, own = clean_path(value), clean_path(name)
            if "/" in own and path.endswith("/" + own):  # a bare name at the top would make a prefix of any folder
                out.add(path.removesuffix(own))
        return out

    def _after_prefix(self, value: str, prefixes: set[str]) -> str | None:
        path = clean_path(value)
        names = {self.exact.get(path.removeprefix(prefix)) for prefix in prefixes if path.startswith(prefix)} - {None}
        return names.pop() if len(names) == 1 else None

    def _refuse_conflicts(self, found: dict[str, str], reasons: dict[str, str], claims: dict[str, list[tuple[str, int]]]) -> None:
        """Removes the values that share a file with a value of the same or a better rank that cannot mean the same file."""
        for name, claimed in claims.items():
            if len(claimed) == 1 or not any(rank for _, rank in claimed):
                continue
            paths = {value: split_path(value) for value, _ in claimed}
            for value, rank in claimed:
                rivals = [v for v, r in claimed if r <= rank and not share_end(paths[v], paths[value])] if rank else []
                if rivals:
                    del found[value]
                    both = f"{clean_path(value)!r} and {clean_path(rivals[0])!r}"
                    reasons[value] = f"{both} end like one file, {name}: it is unknown which one it is"


def describe_same_names(path: str, names: Sequence[str]) -> str:
    """The sentence about a name that several files have."""
    number = {2: "two"}.get(len(names), f"{len(names):,}")
    return f"{number} files are called {path}: {', '.join(names[:2])}{', ...' if len(names) > 2 else ''}; write its path in the table"


def clean_path(text: str) -> str:
    """A path with forward slashes, without `./`, a drive letter and repeated slashes, in Unicode NFC."""
    if text.isascii() and not set(text) & ODD_CHARACTERS and "//" not in text and "./" not in text:
        return text
    path = unicodedata.normalize("NFC", text.strip()).replace("\\", "/").removeprefix("file://")
    path = re.sub(r"^[A-Za-z]:(?=/)", "", path)
    path = re.sub(r"/(\./)*/*", "/", path)
    while path.startswith("./"):
        path = path[2:]
    return path


def split_path(text: str) -> Parts:
    """The folders and the name of a path."""
    return tuple(part for part in clean_path(text).split("/") if part)


def share_end(a: Parts, b: Parts) -> bool:
    """Whether one of the paths is the end of the other, whatever their suffixes and case."""
    k = min(len(a), len(b))
    return change_name(a, folded_stem)[-k:] == change_name(b, folded_stem)[-k:]


def change_name(parts: Parts, change: Callable[[str], str]) -> Parts:
    """The parts with their last one changed; for a change of case, all of them."""
    if change is str:
        return parts
    if change in (str.casefold, folded_stem):
        parts = tuple(map(str.casefold, parts))
    return (*parts[:-1], change(parts[-1])) if parts else parts


def stem_of(name: str) -> str:
    """A file name without its suffix, and without that of the file it was converted from: `scan` for `scan.dcm.png`."""
    stem = SUFFIX.sub("", name)
    while stem != (shorter := CONVERTED_SUFFIX.sub("", stem)):
        stem = shorter
    return stem


def folded_stem(name: str) -> str:
    """The name without suffix, whatever its case."""
    return stem_of(name.casefold())
