"""A folder of PNG, JPEG and TIFF images, with a CSV that says what is known about them, or without.

Shapes: H, W, C of one image.
"""

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.decode import IMAGE_SUFFIXES, read_image
from encoders.ingest.geometry import ResizeRule, describe_geometry, resize_to_square
from encoders.ingest.label_table import ColumnRoles, assign_roles, filter_rows, read_label_table
from encoders.ingest.pattern import compile_pattern, extract_groups, split_by_match
from encoders.ingest.source import ImageRow, Unreadable, file_stamp, is_gray
from encoders.runtime.errors import InputError
from encoders.runtime.files import walk_files
from encoders.stain.normalise import measure_stain, normalise_stain, validate_stain_method
from encoders.store.write import full_range_unit

INGEST_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's convert("L")


@dataclass(frozen=True)
class FileItem:
    """A file, and the line of the table that speaks of it."""

    name: str  # relative to the folder, with forward slashes: the key of the store
    row: dict[str, str] = field(default_factory=dict)


class FolderSource:
    """Every image below a folder, or those that a CSV names."""

    codec = "raw"

    def __init__(
        self,
        folder: str | Path,
        labels: str | Path | None = None,
        *,
        columns: dict[str, str | None] | None = None,
        label: Sequence[str] = (),
        meta: Sequence[str] = (),
        only: Sequence[str] = (),
        size: int = 256,
        resize: ResizeRule = "pad",
        channels: int | None = None,
        bits: int | None = None,
        modality: str = "cxr",
        dataset: str | None = None,
        codec: str = "raw",
        pattern: str | None = None,
        mpp: float | None = None,
        normalise: str | None = None,
    ):
        """columns: part (file, patient, split, study, slide) to column name.  pattern: what the path of a file says (`pattern.py`).
        mpp: um a pixel of the files.  normalise: H&E stain, macenko or reinhard.

        Raises InputError for what the user got wrong."""
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"{folder} is not a folder; give the folder that holds the images")
        self.size, self.resize, self.channels, self.bits, self.codec = size, resize, channels, bits, codec
        self.modality, self.dataset = modality, dataset or self.folder.resolve().name
        self.unit = full_range_unit(np.uint16, bits) if bits else None
        self.mpp, self.normalise = mpp, validate_stain_method(normalise)
        self.filters = list(only)
        self.notes: list[str] = []
        self.roles: ColumnRoles | None = None
        self.pattern = compile_pattern(pattern) if pattern else None
        self._items = self._from_table(Path(labels), columns or {}, list(label), list(meta)) if labels else self._from_folder()
        if self.pattern is not None:
            self._items = self._matching(self.pattern)
        self.geometry = describe_geometry(size, resize) | ({"mpp": self._stored_mpp()} if mpp else {}) | self._stained

    @property
    def _stained(self) -> dict[str, str]:
        return {"normalise": self.normalise} if self.normalise else {}

    def _stored_mpp(self) -> float:
        """um a pixel of the first image as it is stored; every image has its own in the index."""
        for item in self._items:
            with suppress(Unreadable):
                return self.mpp_of(read_image(self.folder / item.name).shape)
        raise InputError(f"none of the {len(self._items)} images in {self.folder} can be read")

    def mpp_of(self, shape: tuple[int, ...]) -> float:
        """um a pixel of an image (H, W, C) once it has its stored size. Raises InputError when squashing makes it two numbers."""
        assert self.mpp
        if not self.size:
            return self.mpp
        if self.resize == "squash" and shape[0] != shape[1]:
            raise InputError(
                f"--mpp with --resize squash: an image of {shape[1]} x {shape[0]} gets pixels that are not square; use pad or crop"
            )
        return self.mpp * (min if self.resize == "crop" else max)(shape[:2]) / self.size

    def _matching(self, pattern: re.Pattern[str]) -> list[FileItem]:
        """The items whose path the pattern is found in; what the path and the CSV both say is refused."""
        for part in pattern.groupindex:
            said = getattr(self.roles, part, None)
            if ("label" in (said or ())) if part == "label" else said:
                raise InputError(f"the {part} is in --pattern and in a column of the CSV; turn one off, e.g. --{part}-column ''")
        fit, others = split_by_match(pattern, [item.name for item in self._items])
        self.notes.append(f"from the path: {', '.join(pattern.groupindex)}")
        if others:
            self.notes.append(f"{len(others)} files do not match --pattern and were left out, e.g. {others[0]}")
        kept = set(fit)
        return [item for item in self._items if item.name in kept]

    def _from_folder(self) -> list[FileItem]:
        if self.filters:
            raise InputError("--only filters the rows of a CSV; pass --labels too")
        files, others = list_image_files(self.folder)
        if not files:
            raise InputError(f"{self.folder} holds no PNG, JPEG or TIFF; {sum(others.values())} other files")
        said = self.pattern.groupindex if self.pattern else ()
        if "label" not in said:
            self.notes.append("no --labels: no label is stored")
        if "patient" not in said:
            self.notes.append("warning: nothing names the patients: every image counts as a patient of its own")
        self.notes += [f"{n} files skipped: {kind}" for kind, n in sorted(others.items())]
        return [FileItem(name) for name in files]

    def _from_table(self, path: Path, given: dict[str, str | None], label: list[str], meta: list[str]) -> list[FileItem]:
        if not path.exists() and (self.folder / path).exists():
            path = self.folder / path
            self.notes.append(f"labels are read from {path}")
        columns, rows = read_label_table(path)
        self.roles = assign_roles(columns, given, label, meta)
        self.notes += self.roles.said(columns)
        if self.roles.patient is None and not (self.pattern and "patient" in self.pattern.groupindex):
            self.notes.append("warning: no patient column: every image counts as a patient of its own")
        kept = filter_rows(columns, rows, self.filters)
        files, _ = list_image_files(self.folder)
        find = FileFinder(files)
        items: dict[str, FileItem] = {}
        for row in kept:
            name = find(row[self.roles.file])
            if name in items:
                raise InputError(f"{path} names {name} in two rows; keep one row a file (or choose with --only)")
            items[name] = FileItem(name, row)
        found = items.keys() & set(files)
        if not found:
            first = kept[0][self.roles.file] if kept else ""
            raise InputError(
                f"not one of the {len(kept)} files in column {self.roles.file!r} of {path} (first: {first!r}) is in {self.folder}"
            )
        lost, loose = len(items) - len(found), len(set(files) - found)
        self.notes.append(f"{len(kept)} rows wanted, {lost} of them without a file; {loose} images without a row were not ingested")
        if self.filters:
            self.notes.append(f"{len(rows) - len(kept)} rows left out by --only {' --only '.join(self.filters)}")
        return [items[name] for name in sorted(items)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_items": []}  # a worker is handed the items it has to read; a copy of all of them each would be large

    def items(self) -> list[FileItem]:
        return self._items

    def name(self, item: FileItem) -> str:
        return item.name

    def stamp(self, item: FileItem) -> str:
        path = self.folder / item.name
        return (file_stamp(path) if path.is_file() else "missing") + "".join(f"|{k}={v}" for k, v in item.row.items())

    def read(self, item: FileItem) -> ImageRow:
        image = self.wanted_channels(read_image(self.folder / item.name))
        if image.dtype == np.uint16 and self.unit and int(image.max()) > self.unit["scale"]:
            raise Unreadable(f"has the value {image.max()}, above what --bits {self.bits} allows")
        if int(image.min()) == int(image.max()):
            raise Unreadable(f"constant image: every value is {image.flat[0]}")  # before padding makes it look like one with content
        if self.normalise:
            image = normalise_by_own_stain(self.normalise, image)
        cells, roles = item.row, self.roles
        said = extract_groups(self.pattern, item.name) if self.pattern else {}
        label = {"label": said.pop("label")} if "label" in said else {}
        index: dict[str, Any] = {"key": item.name, **said} | ({"mpp": self.mpp_of(image.shape)} if self.mpp else {})
        if roles is None:
            return ImageRow(self.fitted(image), index, {}, label)
        index |= {part: cells[name] for part in ("patient", "split", "study", "slide") if (name := getattr(roles, part))}
        return ImageRow(self.fitted(image), index, {n: cells[n] for n in roles.meta}, label | {n: cells[n] for n in roles.label})

    def wanted_channels(self, image: NDArray[Any]) -> NDArray[Any]:
        """Gray by luminance where one channel was asked for; where the whole set decides, gray colour files become gray early: cheaper."""
        if image.shape[2] == 3 and (self.channels != 3) and is_gray(image):
            return image[..., :1]
        if image.shape[2] == 3 and self.channels == 1:
            return np.rint(image @ INGEST_LUMA).astype(image.dtype)[..., None]
        return image

    def fitted(self, image: NDArray[Any]) -> NDArray[Any]:
        """(S, S, C). An overshoot of the filter must not leave the range that the unit allows."""
        out = resize_to_square(image, self.size, self.resize)
        return np.minimum(out, int(self.unit["scale"])).astype(out.dtype) if self.unit and out.dtype == np.uint16 else out

    def recipe(self) -> dict[str, Any]:
        columns = self.roles.__dict__ if self.roles else None
        return (
            {
                "command": "ingest folder",
                "columns": columns and {k: list(v) if isinstance(v, tuple) else v for k, v in columns.items()},
            }
            | ({"only": self.filters} if self.filters else {})
            | ({"pattern": self.pattern.pattern} if self.pattern else {})
            | ({"mpp": self.mpp} if self.mpp else {})
            | self._stained
        )

    def attributes(self) -> dict[str, Any]:
        return {}


def normalise_by_own_stain(how: str, image: NDArray[Any]) -> NDArray[np.uint8]:
    """The image (H, W, 3) normalised by its own stains. Raises Unreadable where it has none."""
    if image.dtype != np.uint8 or image.shape[2] != 3:
        raise Unreadable(f"is not colour of 8 bits, which --normalise {how} needs")
    look = measure_stain(how, image)
    if look is None:
        raise Unreadable(f"shows too little tissue, or no two stains, for --normalise {how}")
    return normalise_stain(image, look)


def list_image_files(folder: Path) -> tuple[list[str], Counter[str]]:
    """The images below a folder, sorted, as relative names; and how many other files there are of each kind."""
    files, others = [], Counter[str]()
    for path in walk_files(folder):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            files.append(path.relative_to(folder).as_posix())
        else:
            others[path.suffix.lower() or "no suffix"] += 1
    return sorted(files), others


class FileFinder:
    """From a file name in a table to a file: the relative path, or its last part, or that without suffix, if only one file has it."""

    def __init__(self, files: Sequence[str]):
        self.files = set(files)
        self.names = unique_names({f: Path(f).name for f in files})
        self.stems = unique_names({f: Path(f).stem for f in files})

    def __call__(self, text: str) -> str:
        """The relative path; the text itself when no file fits."""
        name = text.replace("\\", "/").removeprefix("./")
        if name in self.files:
            return name
        return self.names.get(name) or self.stems.get(name) or name


def unique_names(names: dict[str, str]) -> dict[str, str]:
    """Name to file, for the names that one file alone has."""
    count = Counter(names.values())
    return {name: file for file, name in names.items() if count[name] == 1}
