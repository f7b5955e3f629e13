"""A folder of PNG, JPEG and TIFF images, optionally with a CSV of labels.

Shapes: H, W, C of one image.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.decode import IMAGE_SUFFIXES, decode_file
from encoders.ingest.dullrazor import remove_hairs
from encoders.ingest.geometry import describe_geometry, resize_to_square
from encoders.ingest.label_table import ColumnRoles, Role, assign_roles, find_join_column
from encoders.ingest.list_files import count_skipped, describe_skipped, list_files, strip_partial_suffix
from encoders.ingest.options import BitsChoice, Codec, CombineMode, HairMethod, ResizeRule
from encoders.ingest.pattern import compile_pattern, extract_groups, refuse_two_origins, split_by_match, split_groups
from encoders.ingest.row_filter import describe_filtered, filter_rows
from encoders.ingest.source import ImageRow, Source, Unreadable, Value, describe_default_dataset, file_stamp, is_gray, to_pixel_unit
from encoders.ingest.tables.combine import CombineRule, combine_rows, describe_joining, find_reader_column
from encoders.ingest.tables.file_finder import FileFinder, clean_path
from encoders.ingest.tables.join_images import JoinWay, by_file, by_folder, by_identifier, join_images
from encoders.ingest.tables.list_columns import ListColumn, list_notes
from encoders.ingest.tables.load_tables import Labels, is_several, load_tables
from encoders.ingest.tables.table import Table
from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.files import describe_no_file
from encoders.runtime.json_types import Json
from encoders.stain.normalise import measure_stain, normalise_stain, validate_stain_method
from encoders.store.write import full_range_unit

INGEST_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's convert("L")


@dataclass(frozen=True)
class FileItem:
    """A file and its row in the table."""

    name: str  # relative to the folder, with forward slashes: the key of the store
    row: dict[str, str] = field(default_factory=dict)
    problem: str = ""  # why the table's name stands for no single file


class FolderSource(Source[FileItem]):
    """Every image below a folder, or the images that a CSV names."""

    def __init__(
        self,
        folder: str | Path,
        labels: Labels | None = None,
        *,
        columns: Mapping[Role, str | None] | None = None,
        label: Sequence[str] = (),
        meta: Sequence[str] = (),
        only: Sequence[str] = (),
        on: Sequence[str] = (),
        combine: CombineMode = "error",
        reader: str | None = None,
        derive: Sequence[str] = (),
        lists: ListColumn | None = None,
        size: int = 256,
        resize: ResizeRule = "pad",
        channels: int | None = None,
        bits: BitsChoice | None = None,
        accept_damaged: bool = False,
        modality: str = "cxr",
        dataset: str | None = None,
        codec: Codec = "raw",
        pattern: str | None = None,
        mpp: float | None = None,
        normalise: str | None = None,
        remove_hair: HairMethod | None = None,
        files: Sequence[str] | None = None,
    ):
        """labels: table or tables, joined on the columns `on`.  columns: role (file, patient, split, study, slide) to column name.
        combine: what becomes of rows of one image that disagree.  reader: column of readers, who have one vote each.
        derive: columns of 0 and 1 from comparisons.  lists: findings in the lists of a column.
        pattern: regular expression for the paths (`pattern.py`).
        bits: that 16-bit files use; auto: found by group, see `image_bits`.  accept_damaged: store damaged JPEG files as they are decoded.
        mpp: micrometres per pixel of the files.  normalise: method of H&E stain normalisation, macenko or reinhard.
        remove_hair: method that removes hairs of dermoscopic images (`dullrazor.py`).
        files: paths relative to the folder, to read these alone and without a table; None: the folder is searched.

        Raises InputError for options that do not fit the folder or the table."""
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"{folder} is not a folder; give the folder that holds the images")
        self.size, self.resize, self.channels, self.bits, self.codec = size, resize, channels, bits, codec
        self.modality, self.dataset = modality, dataset or self.folder.resolve().name
        self.auto_bits, self.accept_damaged = bits == "auto", accept_damaged
        self.unit = to_pixel_unit(full_range_unit(np.uint16, bits)) if isinstance(bits, int) else None
        self.mpp, self.normalise, self.hair = mpp, validate_stain_method(normalise), remove_hair
        self.filters, self.on, self.combine, self.derive = list(only), list(on), CombineRule(combine, reader), list(derive)
        self.lists = lists
        self.notes: list[str] = [] if dataset else [describe_default_dataset(self.dataset)]
        self.roles: ColumnRoles | None = None
        self.left_out: dict[str, int] = {}
        self.pattern = compile_pattern(pattern) if pattern else None
        self._items = (
            self._from_table(labels, columns or {}, [*label, *(lists.findings if lists else ())], list(meta))
            if labels
            else self._from_folder()
            if files is None
            else [FileItem(name) for name in files]
        )
        if self.pattern is not None:
            self._items = self._matching_items(self.pattern)
        self.geometry = describe_geometry(size, resize) | ({"mpp": self._first_stored_mpp()} if mpp else {}) | self._step_attributes

    @property
    def _step_attributes(self) -> dict[str, Json]:
        steps: dict[str, Json] = {"normalise": self.normalise, "remove_hair": self.hair}
        return {name: method for name, method in steps.items() if method}

    def _first_stored_mpp(self) -> float:
        """Micrometres per pixel of the first image as stored; the index has the value of every image."""
        for item in self._items:
            with suppress(Unreadable):
                return self.stored_mpp(decode_file(self.folder / item.name, self.accept_damaged).pixels.shape)
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
        if self.roles:
            refuse_two_origins(pattern.groupindex, self.roles, "the CSV")
        matched, others = split_by_match(pattern, [item.name for item in self._items if not item.problem])
        self.notes.append(f"columns from the path: {', '.join(pattern.groupindex)}")
        if others:
            self.notes.append(f"{len(others)} files do not match --pattern and are left out (first: {others[0]})")
            self.left_out["no match of --pattern"] = len(others)
        kept = set(matched)
        return [item for item in self._items if item.name in kept or item.problem]

    def _from_folder(self) -> list[FileItem]:
        if self.filters:
            raise InputError("--only filters the rows of a CSV; pass --labels too")
        if self.lists:
            raise InputError("--list-column reads a column of a table; pass --labels too")
        files, others, self.broken = listed = list_files(self.folder, IMAGE_SUFFIXES)
        if not files:
            raise InputError(f"{self.folder} holds no PNG, JPEG or TIFF, but {listed.describe_others()}")
        groups = self.pattern.groupindex if self.pattern else {}
        if "label" not in groups:
            self.notes.append("no --labels: no label is stored")
        if "patient" not in groups:
            self.notes.append("warning: patients are unknown: every image counts as a patient of its own")
        self.notes += describe_skipped(others)
        self.left_out = count_skipped(others)
        return [FileItem(name) for name in files]

    def _from_table(self, labels: Labels, named: Mapping[Role, str | None], label: list[str], meta: list[str]) -> list[FileItem]:
        table = load_tables(labels, self.on, self.notes, self.folder, self.derive, self.lists)
        alone = self.on[0] if self.on and not is_several(labels) else None  # with one table, --on names the column of images
        file = named.get("file") or alone or find_join_column(table.columns)
        roles = assign_roles(table.columns, {**named, "file": file}, label, meta)
        self.notes += [*roles.describe(table.columns), *list_notes(table, roles.label)]
        if roles.patient is None and not (self.pattern and "patient" in self.pattern.groupindex):
            self.notes.append("warning: no patient column: every image counts as a patient of its own")
        kept = table.with_rows(filter_rows(table.columns, table.rows, self.filters, self.notes))
        files, others, broken = list_files(self.folder, IMAGE_SUFFIXES)
        lost = {target: each for each in broken if (target := strip_partial_suffix(each.name)) not in files}  # rows may name them
        joined = join_images(kept, roles.file, every := [*files, *lost], [*self._join_ways(every, table)], "--file-column")
        self.combine = CombineRule(self.combine.mode, find_reader_column(table.columns, self.combine.reader))
        roles = roles.without(roles.file, joined.way)  # an identifier that joins the rows to paths is read from the paths
        rows, self.roles = combine_rows(joined.rows, roles, self.combine, table.source, self.notes)
        items = {name: FileItem(name, row, " ".join(lost[name]) if name in lost else "") for name, row in rows.items()}
        named_broken = {each for name, each in lost.items() if name in rows}
        self.broken = [each for each in broken if each not in named_broken]
        unmatched = joined.unmatched if joined.way == "file" else {}
        for value, group in unmatched.items():
            name = clean_path(value)
            problem = joined.reasons.get(value) or ("" if is_below(name) else "there is no such file in the folder")
            items.setdefault(name, FileItem(name, group[0] | dict.fromkeys(self.roles.meta[len(roles.meta) :], ""), problem))
        missing = sum(map(len, joined.unmatched.values()))
        by = "" if joined.way == "file" else f"joined on {joined.way}: "
        without = f"{missing} of them without {'a file' if not by else 'an image'}"
        without_row = len(files) - len(rows.keys() - lost.keys())
        self.notes.append(f"{by}{len(kept.rows)} rows selected, {without}; {without_row} images without a row are left out")
        self.notes += joined.notes
        self.left_out = count_skipped(others) | {"no row in the table": without_row}
        self.notes += describe_filtered(self.filters, len(table.rows) - len(kept.rows))
        return [items[name] for name in sorted(items)]

    def _join_ways(self, files: Sequence[str], table: Table) -> Iterator[JoinWay]:
        """How rows can be joined to files: by file, by folder, and by what the pattern finds in the paths."""
        yield by_file(FileFinder(files, self.folder.resolve().as_posix(), table.folders))
        yield by_folder(files)
        pattern = self.pattern
        for part in ("study", "slide", "patient") if pattern else ():
            if pattern and part in pattern.groupindex:
                yield by_identifier(part, {name: extract_groups(pattern, name).get(part, "") for name in files})

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_items": []}  # a worker receives the items that it reads; copies of all items would be large

    def items(self) -> list[FileItem]:
        return self._items

    def name(self, item: FileItem) -> str:
        return item.name

    def stamp(self, item: FileItem) -> str:
        path = self.folder / item.name
        return (item.problem or describe_no_file(path) or file_stamp(path)) + "".join(f"|{k}={v}" for k, v in item.row.items())

    def read(self, item: FileItem) -> ImageRow:
        if item.problem:
            raise Unreadable(item.problem)
        decoded = decode_file(self.folder / item.name, self.accept_damaged)
        image, top = self.convert_channels(decoded.pixels), int(decoded.pixels.max())
        if image.dtype == np.uint16 and self.unit and top > self.unit["scale"]:
            raise Unreadable(f"has the value {top}, above what --bits {self.bits} allows")
        if int(image.min()) == int(image.max()):
            raise Unreadable(f"constant image: every value is {image.flat[0]}")  # before padding adds other values
        if self.normalise:
            image = normalise_by_own_stain(self.normalise, image)
        cells, roles = item.row, self.roles
        groups, label, meta = split_groups(extract_groups(self.pattern, item.name)) if self.pattern else ({}, {}, {})
        index: dict[str, Value] = {"key": item.name, **groups} | ({"mpp": self.stored_mpp(image.shape)} if self.mpp else {})
        stored = self.resize_image(remove_hairs(image, self.size) if self.hair else image)
        if roles is None:
            return ImageRow(stored, index, meta, label, decoded.remarks, top)
        index |= {role: cells[name] for role, name in roles.identity.items()}
        meta, label = meta | {n: cells[n] for n in roles.meta}, label | {n: cells[n] for n in roles.label}
        return ImageRow(stored, index, meta, label, decoded.remarks, top)

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
            | ({"bits": "auto"} if self.auto_bits else {})
            | ({"accept_damaged": True} if self.accept_damaged else {})
            | describe_joining(self.on, self.combine)
            | ({"derive": self.derive} if self.derive else {})
            | (self.lists.as_json() if self.lists else {})
            | ({"pattern": self.pattern.pattern} if self.pattern else {})
            | ({"mpp": self.mpp} if self.mpp else {})
            | self._step_attributes
        )


def normalise_by_own_stain(method: str, image: Array) -> NDArray[np.uint8]:
    """The image (H, W, 3) normalised by the stains measured on it. Raises Unreadable if none can be measured."""
    if image.dtype != np.uint8 or image.shape[2] != 3:
        raise Unreadable(f"is not an 8-bit colour image, which --normalise {method} requires")
    look = measure_stain(method, image)
    if look is None:
        raise Unreadable(f"has too little tissue, or fewer than two stains, for --normalise {method}")
    return normalise_stain(image, look)


def is_below(name: str) -> bool:
    """Whether a path cannot lead out of the folder that it is relative to."""
    return not name.startswith("/") and ".." not in name.split("/")
