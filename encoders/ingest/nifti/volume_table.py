"""Labels of volumes from tables: a row names a file, its folder or its patient, and gives its columns to all slices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from encoders.ingest.label_table import ColumnRoles, Role, assign_roles, find_join_column
from encoders.ingest.options import CombineMode
from encoders.ingest.row_filter import describe_filtered, filter_rows
from encoders.ingest.tables.combine import CombineRule, combine_rows, describe_joining, find_reader_column
from encoders.ingest.tables.file_finder import FileFinder
from encoders.ingest.tables.join_images import by_file, by_folder, by_identifier, join_images
from encoders.ingest.tables.list_columns import ListColumn, list_notes
from encoders.ingest.tables.load_tables import Labels, is_several, load_tables
from encoders.ingest.tables.table import TableRow
from encoders.runtime.json_types import Json


@dataclass(frozen=True)
class VolumeTable:
    """The rows of volumes. rows: volume (relative path) -> its row.  rule: how rows that disagreed were combined.

    notes: how columns and rows were read."""

    roles: ColumnRoles
    rows: dict[str, TableRow]
    rule: CombineRule
    notes: list[str]


@dataclass(frozen=True)
class VolumeLabels:
    """A table, or several, of volumes, and how it is read."""

    labels: Labels
    columns: Mapping[Role, str | None] = field(default_factory=dict)  # file, patient, split; None: guessed, "": none
    label: Sequence[str] = ()
    meta: Sequence[str] = ()
    only: Sequence[str] = ()  # filters of the rows; with one, volumes without a row are left out
    on: Sequence[str] = ()  # columns on which several tables are joined
    combine: CombineMode = "error"  # what becomes of rows of one volume that disagree
    reader: str | None = None  # column of readers, who have one vote each
    derive: Sequence[str] = ()  # columns of 0 and 1 from comparisons
    lists: ListColumn | None = None  # findings in the lists of a column

    def join(self, volumes: Mapping[str, str], folder: Path) -> VolumeTable:
        """The table joined to the volumes. Volumes without a row are named in the notes and have no labels.

        volumes: relative path -> patient from the path, or "".  folder: of the volumes, where a table is looked for too.
        Raises InputError if no row matches a volume, and for rows of one volume that disagree and are not combined."""
        notes: list[str] = []
        table = load_tables(self.labels, self.on, notes, folder, self.derive, self.lists)
        alone = self.on[0] if self.on and not is_several(self.labels) else None  # with one table, --on names the column of volumes
        named = {**self.columns, "file": self.columns.get("file") or alone or find_join_column(table.columns)}
        roles = assign_roles(table.columns, named, [*self.label, *(self.lists.findings if self.lists else ())], list(self.meta))
        notes += [*roles.describe(table.columns), *list_notes(table, roles.label)]
        kept = table.with_rows(filter_rows(table.columns, table.rows, self.only, notes))
        notes += describe_filtered(self.only, len(table.rows) - len(kept.rows))
        ways = [
            by_file(FileFinder(list(volumes), folder.resolve().as_posix(), table.folders)),
            by_folder(list(volumes)),
            by_identifier("patient", volumes),
        ]
        joined = join_images(kept, roles.file, list(volumes), ways, "--file-column")
        rule = CombineRule(self.combine, find_reader_column(table.columns, self.reader))
        rows, roles = combine_rows(joined.rows, roles.without(roles.file, joined.way), rule, table.source, notes, (), "volume")
        lost, without = sum(map(len, joined.unmatched.values())), sorted(volumes.keys() - rows.keys())
        by = "" if joined.way == "file" else f"joined on {joined.way}: "
        have = f"{len(rows)} of {len(volumes)} volumes have a row"
        notes.append(f"{by}{len(kept.rows) - lost} of {len(kept.rows)} rows name a volume, {have}")
        notes += [f"{lost} rows name no volume (first: {next(iter(joined.unmatched))!r})"] if lost else []
        fate = "are left out" if self.only else "have no labels from the table"
        notes += [f"{len(without)} volumes have no row and {fate} (first: {without[0]})"] if without else []
        return VolumeTable(roles, rows, rule, [*notes, *joined.notes])

    def recipe(self, table: VolumeTable) -> dict[str, Json]:
        """What a store records of the table."""
        lists = self.lists.as_json() if self.lists else {}
        derive: dict[str, Json] = {"derive": list(self.derive)} if self.derive else {}
        return {"columns": table.roles.as_json(), **describe_joining(self.on, table.rule), **derive, **lists}
