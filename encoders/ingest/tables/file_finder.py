"""Finds the files that a table names: by relative, absolute, Windows or prefixed path, by file name, or by name without suffix.

A path matches by its longest end that exactly one file has. That is a guess where both the path and the file have other folders in
front, so it is refused if another path of the table ends in the same way, or if the folder that the path names exists elsewhere.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

SUFFIX = re.compile(r"(?<=.)\.[A-Za-z][A-Za-z0-9]{1,7}$")  # `.png`, `.dicom`; not the last number of a UID
CONVERTED_SUFFIX = re.compile(r"(?<=.)\.(dcm|dicom|nii|ome|png|jpe?g|tiff?|svs)$", re.IGNORECASE)  # `scan.dcm` of `scan.dcm.png`
SPLIT_FOLDERS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
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

    def __init__(self, files: Sequence[str], root: str = ""):
        """files: paths relative to `root`, with forward slashes.  root: absolute path of their folder, "" if unknown."""
        self.files, self.root = list(files), root.rstrip("/") + "/" if root else ""
        self.exact = {clean_path(name): name for name in files}
        self._ends: dict[Callable[[str], str], dict[Parts, list[str]]] = {}

    @cached_property
    def folders(self) -> set[str]:
        """The names of all folders that hold files, at any depth."""
        return {part for folder in {name.rpartition("/")[0] for name in self.files} for part in folder.split("/")}

    def match(self, values: Iterable[str]) -> FileMatches:
        """The file of every value that names one."""
        found, reasons = dict[str, str](), dict[str, str]()
        claims: dict[str, list[tuple[str, Parts]]] = defaultdict(list)  # file -> values that name it, and what they add in front
        for value in dict.fromkeys(values):
            path = clean_path(value)
            if (name := self._exactly(path)) is not None:
                found[value] = name
                claims[name].append((value, ()))
            elif path and (hits := self._longest_end(path)) is not None:
                names, front = hits
                if len(names) == 1:
                    found[value] = names[0]
                    claims[names[0]].append((value, front))
                elif not front:
                    reasons[value] = describe_same_names(path, names)
                else:
                    reasons[value] = ""  # an end that several files have; `_strip_prefix` may still know the folder
        prefixes = self._prefixes(found)
        for value in [v for v in reasons if (name := self._after_prefix(v, prefixes)) is not None and not found.update({v: name})]:
            del reasons[value]
        self._refuse_conflicts(found, reasons, claims)
        by_end = [v for v, name in found.items() if not share_end(split_path(v), split_path(name))]
        return FileMatches(found, {v: text for v, text in reasons.items() if text}, by_end)

    def _exactly(self, path: str) -> str | None:
        return self.exact.get(path.removeprefix(self.root)) or self.exact.get(path) if self.root else self.exact.get(path)

    def _longest_end(self, path: str) -> tuple[list[str], Parts] | None:
        """The files with the longest end of the path, and the folders of the path before that end; None if no file has any."""
        parts, guess = tuple(part for part in path.split("/") if part), None
        for change in (str, stem_of, str.casefold, folded_stem):
            changed, ends = change_name(parts, change), self._index(change)
            k = next((k for k in range(len(changed)) if changed[k:] in ends), None)
            hit = None if k is None else self._allowed(ends[changed[k:]], parts[:k], changed[k:])
            if hit and (not hit[1] or (len(hit[0]) == 1 and len(split_path(hit[0][0])) <= len(parts) - len(hit[1]))):
                return hit  # all of the path, or all of the file's path
            guess = guess or hit
        return guess

    def _allowed(self, names: list[str], front: Parts, end: Parts) -> tuple[list[str], Parts] | None:
        """The hit, unless path and file have different folders in front and the one of the path is known to be another one."""
        inside = [name for name in names if len(split_path(name)) == len(end)]  # the whole path of the file
        if front and not inside:
            if front[-1] in self.folders:
                return None
            theirs = {split_path(name)[-len(end) - 1].casefold() for name in names}
            if front[-1].casefold() in SPLIT_FOLDERS and theirs & SPLIT_FOLDERS:
                return None
        return names, front

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

    def _prefixes(self, found: dict[str, str]) -> set[str]:
        """What paths of the table have in front of the whole relative path of their file, e.g. `/data/images/`."""
        out = set[str]()
        for value, name in found.items():
            path, own = clean_path(value), clean_path(name)
            if "/" in own and path.endswith("/" + own):  # a bare name at the top would make a prefix of any folder
                out.add(path.removesuffix(own))
        return out

    def _after_prefix(self, value: str, prefixes: set[str]) -> str | None:
        path = clean_path(value)
        names = {self.exact.get(path.removeprefix(prefix)) for prefix in prefixes if path.startswith(prefix)} - {None}
        return names.pop() if len(names) == 1 else None

    def _refuse_conflicts(self, found: dict[str, str], reasons: dict[str, str], claims: dict[str, list[tuple[str, Parts]]]) -> None:
        """Removes the values that share a file with a value that cannot mean the same file: neither is the end of the other.

        A path inside that of the file is never removed, and one that ends with the whole path of the file only for another such path."""
        for name, claimed in claims.items():
            if len(claimed) == 1 or not any(front for _, front in claimed):
                continue
            own = change_name(split_path(name), folded_stem)
            paths = {value: change_name(split_path(value), folded_stem) for value, _ in claimed}
            rank = {value: 0 if not front else 1 if paths[value][-len(own) :] == own else 2 for value, front in claimed}
            for value in paths:
                rivals = [v for v in paths if rank[v] <= rank[value] and not share_end(paths[v], paths[value])] if rank[value] else []
                if rivals:
                    del found[value]
                    reasons[value] = (
                        f"{clean_path(value)!r} and {clean_path(rivals[0])!r} end like one file, {name}: it is unknown which one it is"
                    )


def describe_same_names(path: str, names: Sequence[str]) -> str:
    """The sentence about a name that several files have."""
    number = {2: "two"}.get(len(names), f"{len(names):,}")
    return f"{number} files are called {path}: {', '.join(names[:2])}{', ...' if len(names) > 2 else ''}; write its path in the table"


def clean_path(text: str) -> str:
    """A path with forward slashes, without `./`, a drive letter and repeated slashes, in Unicode NFC."""
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
