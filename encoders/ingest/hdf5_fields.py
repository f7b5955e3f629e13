"""Patient, slide, split and labels of arrays in HDF5, from the paths of the files and from a table.

A table has a row per file (CLAM: a file is a slide), or, for a single file, a row per image in the order of the images (PCam publishes one
with the column `wsi`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from encoders.ingest.label_table import ColumnRoles, Role, assign_roles, find_column
from encoders.ingest.pattern import compile_pattern, extract_groups, refuse_two_origins, split_by_match, split_groups
from encoders.ingest.row_filter import describe_filtered, filter_rows
from encoders.ingest.source import Value
from encoders.ingest.tables.combine import CombineRule, combine_rows
from encoders.ingest.tables.file_finder import FileFinder
from encoders.ingest.tables.join_images import by_file, join_images
from encoders.ingest.tables.list_columns import ListColumn, list_notes
from encoders.ingest.tables.load_tables import load_tables
from encoders.ingest.tables.table import Table
from encoders.runtime.errors import InputError
from encoders.runtime.json_types import Json
from encoders.runtime.unknown_values import find_unknown_patients

SLIDE_COLUMNS = ("slide", "slide_id", "slideid", "wsi")

TABLE_NAME = re.compile(r"\.(csv|tsv|txt|xlsx?|ods|parquet)(\.gz|\.zip)?$", re.IGNORECASE)


@dataclass(frozen=True)
class TableOptions:
    """A table of files or images, and its columns; None: guessed by their names, "": none."""

    path: Path | None = None
    columns: Mapping[Role, str | None] = field(default_factory=dict)  # file, patient, slide, split
    label: Sequence[str] = ()
    meta: Sequence[str] = ()
    pattern: str | None = None  # regular expression for the paths of the files
    lists: ListColumn | None = None  # findings in the lists of a column
    only: Sequence[str] = ()  # filters of the rows


@dataclass(frozen=True)
class ImageFields:
    """Columns of one image, or of all images of a file."""

    index: Mapping[str, Value] = field(default_factory=dict)
    meta: Mapping[str, Value] = field(default_factory=dict)
    labels: Mapping[str, Value] = field(default_factory=dict)

    def stamp(self) -> str:
        """Changes when a value changes."""
        return "".join(f"|{k}={v}" for part in (self.index, self.meta, self.labels) for k, v in part.items())


class ArrayFields:
    """The fields of the images of several files."""

    def __init__(self, options: TableOptions, names: Sequence[str], lengths: Sequence[int], notes: list[str], root: Path):
        """names: paths of the files, relative to `root`.  lengths: images of each.  What was assumed and left out is added to `notes`.

        Raises InputError for a pattern or a table that does not fit the files."""
        self.options, self.left_out, self.root = options, dict[str, int](), root.resolve().as_posix()
        self.by_file: dict[int, ImageFields] = {k: ImageFields() for k in range(len(names))}  # files without fields are left out
        self.by_row: list[ImageFields] = []
        self.unselected: set[int] = set()  # rows of `by_row` that --only leaves out
        self.file_is_slide = False  # whether the table names the files by their slides
        self.roles: ColumnRoles | None = None
        if options.pattern:
            self._apply_pattern(options.pattern, names, lengths, notes)
        if options.path is not None:
            self._apply_table(load_tables(options.path, (), notes, lists=options.lists), names, lengths, notes)
        elif options.lists or options.only:
            raise InputError(f"--{'list-column' if options.lists else 'only'} reads a column of a table; pass --table FILE.csv too")

    def of(self, file: int, row: int) -> ImageFields:
        """The fields of image `row` of file `file`."""
        return self.by_row[row] if self.by_row else self.by_file[file]

    def recipe(self) -> dict[str, Json]:
        """What a store records; {} without table and pattern."""
        pattern: dict[str, Json] = {"pattern": self.options.pattern} if self.options.pattern else {}
        only: dict[str, Json] = {"only": list(self.options.only)} if self.options.only else {}
        lists = self.options.lists.as_json() if self.options.lists else {}
        return pattern | ({"columns": self.roles.as_json()} if self.roles else {}) | only | lists

    def _apply_pattern(self, text: str, names: Sequence[str], lengths: Sequence[int], notes: list[str]) -> None:
        pattern = compile_pattern(text)
        matched, others = split_by_match(pattern, names)
        self._leave_out([names.index(name) for name in others], lengths, "no match of --pattern")
        for name in matched:
            index, labels, meta = split_groups(extract_groups(pattern, name))
            self.by_file[names.index(name)] = ImageFields(index, meta, labels)
        notes.append(f"columns from the path: {', '.join(pattern.groupindex)}")
        if others:
            notes.append(f"{len(others)} files do not match --pattern and are left out (first: {others[0]})")

    def _apply_table(self, table: Table, names: Sequence[str], lengths: Sequence[int], notes: list[str]) -> None:
        named = dict(self.options.columns)
        slide = next((column for column in table.columns if column.lower() in SLIDE_COLUMNS), None)
        rowwise = len(names) == 1 and lengths[0] == len(table.rows) > 1 and not named.get("file")
        free = [column for column in table.columns if column not in {*named.values(), *self.options.label, *self.options.meta, slide}]
        if rowwise:
            named["file"] = (free or table.columns)[0]  # not used: rows are in the order of the images
        elif "file" not in named or named["file"] is None:
            named["file"] = find_column(table.columns, None, "file") or slide
        self.file_is_slide = named["file"] == (named.get("slide") or slide) and not rowwise
        if self.file_is_slide:
            named["slide"] = ""  # the name of the file is the slide, however the table spells it
        elif named.get("slide") is None:
            named["slide"] = slide
        labels = [*self.options.label, *(self.options.lists.findings if self.options.lists else ())]
        self.roles = assign_roles(table.columns, named, labels, list(self.options.meta))
        refuse_two_origins(compile_pattern(self.options.pattern).groupindex if self.options.pattern else (), self.roles)
        notes += [*self.roles.describe(table.columns), *list_notes(table, self.roles.label)]
        kept = filter_rows(table.columns, table.rows, self.options.only, notes)
        notes += describe_filtered(self.options.only, len(table.rows) - len(kept))
        if rowwise:
            self.by_row = [self._fields(self.by_file[0], row, self.roles) for row in table.rows]
            notes.append(f"the table has a row for each of the {len(table.rows):,} images, in their order")
            hide_unknown_patients(self.by_row)
            selected = {id(row) for row in kept}
            self.unselected = {i for i, row in enumerate(table.rows) if id(row) not in selected}
            self.left_out |= {"--only": len(self.unselected)} if self.unselected else {}
            return
        table = table.with_rows(kept)
        joined = join_images(table, self.roles.file, names, [by_file(FileFinder(names, self.root, table.folders))], "--file-column")
        rows, self.roles = combine_rows(joined.rows, self.roles, CombineRule(), table.source, notes)
        self._leave_out([k for k, name in enumerate(names) if name not in rows and k in self.by_file], lengths, "no row in the table")
        self.by_file = {k: self._fields(each, rows[names[k]], self.roles) for k, each in self.by_file.items()}
        missing = sum(map(len, joined.unmatched.values()))
        first = f" (first: {next(iter(joined.unmatched))})" if joined.unmatched else ""
        notes.append(f"{len(table.rows)} rows, {missing} of them without a file{first}; {len(names) - len(rows)} files without a row")
        notes += joined.notes
        fields = list(self.by_file.values())
        hide_unknown_patients(fields)
        self.by_file = dict(zip(self.by_file, fields, strict=True))

    def _leave_out(self, files: Sequence[int], lengths: Sequence[int], reason: str) -> None:
        for k in files:
            del self.by_file[k]
            self.left_out[reason] = self.left_out.get(reason, 0) + lengths[k]

    @staticmethod
    def _fields(known: ImageFields, row: Mapping[str, str], roles: ColumnRoles) -> ImageFields:
        index = {part: row[column] for part, column in roles.identity.items()}
        meta, labels = {name: row[name] for name in roles.meta}, {name: row[name] for name in roles.label}
        return ImageFields({**known.index, **index}, {**known.meta, **meta}, {**known.labels, **labels})


def hide_unknown_patients(column: list[ImageFields]) -> None:
    """Removes patients that identify nobody, so that the slide can stand for them. The whole column decides about zeros."""
    for k in find_unknown_patients([fields.index.get("patient") for fields in column]).nonzero()[0]:
        column[k] = replace(column[k], index={name: value for name, value in column[k].index.items() if name != "patient"})


def refuse_table_as_key(labels: str | None) -> None:
    """Raises InputError if the key of the labels is the name of a table: in other ingests --labels names one."""
    if labels and TABLE_NAME.search(labels):
        raise InputError(
            f"--labels {labels}: here it is the key of the labels inside the HDF5 file; a table is passed with --table {labels}"
        )
