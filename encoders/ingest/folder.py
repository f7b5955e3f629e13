"""A folder of PNG, JPEG and TIFF images, optionally with a CSV of labels.

Shapes: H, W, C of one image.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.decode import IMAGE_SUFFIXES, read_image
from encoders.ingest.geometry import describe_geometry, resize_to_square
from encoders.ingest.label_table import ColumnRoles, Role, assign_roles, filter_rows
from encoders.ingest.options import Codec, ResizeRule
from encoders.ingest.pattern import compile_pattern, extract_groups, split_by_match
from encoders.ingest.source import ImageRow, Source, Unreadable, Value, describe_default_dataset, file_stamp, is_gray, to_pixel_unit
from encoders.ingest.tables.table import read_table
from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.files import walk_files
from encoders.runtime.json_types import Json
from encoders.stain.normalise import measure_stain, normalise_stain, validate_stain_method
from encoders.store.write import full_range_unit

INGEST_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's convert("L")


@dataclass(frozen=True)
class FileItem:
    """A file and its row in the table."""

    name: str  # relative to the folder, with forward slashes: the key of the store
    row: dict[str, str] = field(default_factory=dict)


class FolderSource(Source[FileItem]):
    """Every image below a folder, or the images that a CSV names."""

    def __init__(
        self,
        folder: str | Path,
        labels: str | Path | None = None,
        *,
        columns: Mapping[Role, str | None] | None = None,
        label: Sequence[str] = (),
        meta: Sequence[str] = (),
        only: Sequence[str] = (),
        size: int = 256,
        resize: ResizeRule = "pad",
        channels: int | None = None,
        bits: int | None = None,
        modality: str = "cxr",
        dataset: str | None = None,
        codec: Codec = "raw",
        pattern: str | None = None,
        mpp: float | None = None,
        normalise: str | None = None,
    ):
        """columns: role (file, patient, split, study, slide) to column name.  pattern: regular expression for the paths (`pattern.py`).
        mpp: micrometres per pixel of the files.  normalise: method of H&E stain normalisation, macenko or reinhard.

        Raises InputError for options that do not fit the folder or the table."""
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"{folder} is not a folder; give the folder that holds the images")
        self.size, self.resize, self.channels, self.bits, self.codec = size, resize, channels, bits, codec
        self.modality, self.dataset = modality, dataset or self.folder.resolve().name
        self.unit = to_pixel_unit(full_range_unit(np.uint16, bits)) if bits else None
        self.mpp, self.normalise = mpp, validate_stain_method(normalise)
        self.filters = list(only)
        self.notes: list[str] = [] if dataset else [describe_default_dataset(self.dataset)]
        self.roles: ColumnRoles | None = None
        self.pattern = compile_pattern(pattern) if pattern else None
        self._items = self._from_table(Path(labels), columns or {}, list(label), list(meta)) if labels else self._from_folder()
        if self.pattern is not None:
            self._items = self._matching_items(self.pattern)
        self.geometry = describe_geometry(size, resize) | ({"mpp": self._first_stored_mpp()} if mpp else {}) | self._stain_attributes

    @property
    def _stain_attributes(self) -> dict[str, Json]:
        return {"normalise": self.normalise} if self.normalise else {}

    def _first_stored_mpp(self) -> float:
        """Micrometres per pixel of the first image as stored; the index has the value of every image."""
        for item in self._items:
            with suppress(Unreadable):
                return self.stored_mpp(read_image(self.folder / item.name).shape)
        raise InputError(f"none of the {len(self._items)} images in {self.folder} can be read")

    def stored_mpp(self, shape: tuple[int, ...]) -> float:
        """Micrometres per pixel of an image (H, W, C) at its stored size. Raises InputError if its pixels would not be square."""
        assert self.mpp
        if not self.size:
            return self.mpp
        if self.resize == "squash" and shape[0] != shape[1]:
            raise InputError(
                f"--mpp with --resize squash: an image of {shape[1]} x {shape[0]} gets pixels that are not square; use pad or crop"
            )
        return self.mpp * (min if self.resize == "crop" else max)(shape[:2]) / self.size

    def _matching_items(self, pattern: re.Pattern[str]) -> list[FileItem]:
        """The items whose path matches. Raises InputError if a column of the CSV has the role of a group of the pattern."""
        for part in pattern.groupindex:
            if self.roles and (part in self.roles.identity or (part == "label" and "label" in self.roles.label)):
                raise InputError(f"the {part} is in --pattern and in a column of the CSV; turn one off, e.g. --{part}-column ''")
        matched, others = split_by_match(pattern, [item.name for item in self._items])
        self.notes.append(f"columns from the path: {', '.join(pattern.groupindex)}")
        if others:
            self.notes.append(f"{len(others)} files do not match --pattern and are left out (first: {others[0]})")
        kept = set(matched)
        return [item for item in self._items if item.name in kept]

    def _from_folder(self) -> list[FileItem]:
        if self.filters:
            raise InputError("--only filters the rows of a CSV; pass --labels too")
        files, others = list_image_files(self.folder)
        if not files:
            raise InputError(f"{self.folder} holds no PNG, JPEG or TIFF, but {sum(others.values())} other files")
        groups = self.pattern.groupindex if self.pattern else {}
        if "label" not in groups:
            self.notes.append("no --labels: no label is stored")
        if "patient" not in groups:
            self.notes.append("warning: patients are unknown: every image counts as a patient of its own")
        self.notes += [f"{n} files skipped: {kind}" for kind, n in sorted(others.items())]
        return [FileItem(name) for name in files]

    def _from_table(self, path: Path, named: Mapping[Role, str | None], label: list[str], meta: list[str]) -> list[FileItem]:
        if not path.exists() and (self.folder / path).exists():
            path = self.folder / path
            self.notes.append(f"labels are read from {path}")
        table = read_table(path)
        columns, rows = table.columns, table.rows
        self.notes += table.notes
        self.roles = assign_roles(columns, named, label, meta)
        self.notes += self.roles.describe(columns)
        if self.roles.patient is None and not (self.pattern and "patient" in self.pattern.groupindex):
            self.notes.append("warning: no patient column: every image counts as a patient of its own")
        kept = filter_rows(columns, rows, self.filters)
        files, _ = list_image_files(self.folder)
        find = FileFinder(files)
        items: dict[str, FileItem] = {}
        for row in kept:
            name = find(row[self.roles.file])
            if name in items:
                raise InputError(f"{path} names {name} in two rows; keep one row per file (or select with --only)")
            items[name] = FileItem(name, row)
        present = items.keys() & set(files)
        if not present:
            first = kept[0][self.roles.file] if kept else ""
            raise InputError(
                f"none of the {len(kept)} files in column {self.roles.file!r} of {path} (first: {first!r}) is in {self.folder}"
            )
        missing, unlisted = len(items) - len(present), len(set(files) - present)
        self.notes.append(f"{len(kept)} rows selected, {missing} of them without a file; {unlisted} images without a row are left out")
        if self.filters:
            self.notes.append(f"{len(rows) - len(kept)} rows are left out by --only {' --only '.join(self.filters)}")
        return [items[name] for name in sorted(items)]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_items": []}  # a worker receives the items that it reads; copies of all items would be large

    def items(self) -> list[FileItem]:
        return self._items

    def name(self, item: FileItem) -> str:
        return item.name

    def stamp(self, item: FileItem) -> str:
        path = self.folder / item.name
        return (file_stamp(path) if path.is_file() else "missing") + "".join(f"|{k}={v}" for k, v in item.row.items())

    def read(self, item: FileItem) -> ImageRow:
        image = self.convert_channels(read_image(self.folder / item.name))
        if image.dtype == np.uint16 and self.unit and int(image.max()) > self.unit["scale"]:
            raise Unreadable(f"has the value {image.max()}, above what --bits {self.bits} allows")
        if int(image.min()) == int(image.max()):
            raise Unreadable(f"constant image: every value is {image.flat[0]}")  # before padding adds other values
        if self.normalise:
            image = normalise_by_own_stain(self.normalise, image)
        cells, roles = item.row, self.roles
        groups = extract_groups(self.pattern, item.name) if self.pattern else {}
        label: dict[str, Value] = {"label": groups.pop("label")} if "label" in groups else {}
        index: dict[str, Value] = {"key": item.name, **groups} | ({"mpp": self.stored_mpp(image.shape)} if self.mpp else {})
        if roles is None:
            return ImageRow(self.resize_image(image), index, {}, label)
        index |= {role: cells[name] for role, name in roles.identity.items()}
        return ImageRow(self.resize_image(image), index, {n: cells[n] for n in roles.meta}, label | {n: cells[n] for n in roles.label})

    def convert_channels(self, image: Array) -> Array:
        """The luminance if one channel is asked for. A colour file that is gray in all pixels becomes gray early, which is cheaper."""
        if image.shape[2] == 3 and (self.channels != 3) and is_gray(image):
            return image[..., :1]
        if image.shape[2] == 3 and self.channels == 1:
            return np.asarray(np.rint(image @ INGEST_LUMA).astype(image.dtype)[..., None])
        return image

    def resize_image(self, image: Array) -> Array:
        """(S, S, C), clipped to the range of the unit: the filter may overshoot."""
        out = resize_to_square(image, self.size, self.resize)
        return np.minimum(out, int(self.unit["scale"])).astype(out.dtype) if self.unit and out.dtype == np.uint16 else out

    def recipe(self) -> dict[str, Json]:
        return (
            {"command": "ingest folder", "columns": self.roles.as_json() if self.roles else None}
            | ({"only": self.filters} if self.filters else {})
            | ({"pattern": self.pattern.pattern} if self.pattern else {})
            | ({"mpp": self.mpp} if self.mpp else {})
            | self._stain_attributes
        )


def normalise_by_own_stain(method: str, image: Array) -> NDArray[np.uint8]:
    """The image (H, W, 3) normalised by the stains measured on it. Raises Unreadable if none can be measured."""
    if image.dtype != np.uint8 or image.shape[2] != 3:
        raise Unreadable(f"is not an 8-bit colour image, which --normalise {method} requires")
    look = measure_stain(method, image)
    if look is None:
        raise Unreadable(f"has too little tissue, or fewer than two stains, for --normalise {method}")
    return normalise_stain(image, look)


def list_image_files(folder: Path) -> tuple[list[str], Counter[str]]:
    """The images below a folder as sorted relative names, and the number of other files by suffix."""
    files, others = [], Counter[str]()
    for path in walk_files(folder):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            files.append(path.relative_to(folder).as_posix())
        else:
            others[path.suffix.lower() or "no suffix"] += 1
    return sorted(files), others


class FileFinder:
    """Finds the file that a table names by its relative path, its file name, or its stem; the last two only if they are unique."""

    def __init__(self, files: Sequence[str]):
        self.files = set(files)
        self.names = unique_names({f: Path(f).name for f in files})
        self.stems = unique_names({f: Path(f).stem for f in files})

    def __call__(self, text: str) -> str:
        """The relative path; `text` itself if no file matches."""
        name = text.replace("\\", "/").removeprefix("./")
        if name in self.files:
            return name
        return self.names.get(name) or self.stems.get(name) or name


def unique_names(names: dict[str, str]) -> dict[str, str]:
    """Name to file, for the names that exactly one file has."""
    count = Counter(names.values())
    return {name: file for file, name in names.items() if count[name] == 1}
