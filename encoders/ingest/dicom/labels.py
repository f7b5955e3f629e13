"""Tables of labels for DICOM files, joined on the file, its folder or an identifier of its header, whichever the column holds."""

from collections.abc import Sequence
from pathlib import Path

from encoders.ingest.dicom.header import IDENTIFIER_TAGS
from encoders.ingest.folder import FileItem
from encoders.ingest.label_table import UID_COLUMNS, Role, assign_roles, find_join_column
from encoders.ingest.options import CombineMode
from encoders.ingest.row_filter import describe_filtered, filter_rows
from encoders.ingest.tables.combine import CombineRule, combine_rows, find_reader_column
from encoders.ingest.tables.file_finder import FileFinder
from encoders.ingest.tables.join_images import by_file, by_folder, by_identifier, join_images
from encoders.ingest.tables.list_columns import ListColumn, list_notes
from encoders.ingest.tables.load_tables import Labels, is_several, load_tables


class DicomLabels:
    """The rows of a table and the roles of its columns."""

    def __init__(
        self,
        labels: Labels,
        join: str | None = None,
        patient: str | None = None,
        split: str | None = None,
        label: Sequence[str] = (),
        meta: Sequence[str] = (),
        filters: Sequence[str] = (),
        on: Sequence[str] = (),
        combine: CombineMode = "error",
        reader: str | None = None,
        derive: Sequence[str] = (),
        lists: ListColumn | None = None,
    ):
        """labels: table or tables, joined on the columns `on`.  join: column to join to the files.
        patient: column that replaces PatientID.
        combine: what becomes of rows of one file that disagree.  reader: column of readers, who have one vote each.
        derive: columns of 0 and 1 from comparisons.  lists: findings in the lists of a column.

        Raises InputError for unknown columns and for tables that cannot be joined."""
        self.filters, self.on, self.derive, self.notes = list(filters), list(on), list(derive), list[str]()
        self.lists = lists
        table = load_tables(labels, on, self.notes, derive=derive, lists=lists)
        alone = on[0] if on and not is_several(labels) else None  # with one table, --on names the column to join to the files
        join = join or alone or find_join_column(table.columns, UID_COLUMNS)
        named: dict[Role, str | None] = {"file": join, "patient": patient or "", "split": split, "study": "", "slide": ""}
        self.roles = assign_roles(table.columns, named, [*label, *(lists.findings if lists else ())], list(meta), "pass --join-column")
        self.notes += [*self.roles.describe(table.columns), *list_notes(table, self.roles.label)]
        self.combine = CombineRule(combine, find_reader_column(table.columns, reader))
        self.table = table.with_rows(filter_rows(table.columns, table.rows, self.filters, self.notes))
        self.notes += describe_filtered(self.filters, len(table.rows) - len(self.table.rows))

    def needs_headers(self, names: Sequence[str], folder: Path) -> bool:
        """Whether the column holds anything other than file names."""
        values = dict.fromkeys(row[self.roles.file] for row in self.table.rows)
        return len(self._finder(names, folder).match(values).files) < len(values)

    def _finder(self, names: Sequence[str], folder: Path) -> FileFinder:
        return FileFinder(names, folder.resolve().as_posix(), self.table.folders)

    def join_files(self, names: Sequence[str], headers: dict[str, dict[str, str]], notes: list[str], folder: Path) -> list[FileItem]:
        """The files with their rows, joined on what most values of the column match.  names: relative to `folder`.

        Files without a row are kept with unknown labels; with a filter on the rows they are left out.
        Raises InputError if no row matches any file, and for rows of one file that disagree."""
        identifiers = {tag: {name: h.get(key, "") for name, h in headers.items()} for key, tag in IDENTIFIER_TAGS.items()}
        ways = [
            by_file(self._finder(names, folder)),
            *(by_identifier(way, values) for way, values in identifiers.items()),
            by_folder(names),
        ]
        joined = join_images(self.table, self.roles.file, names, ways, "--join-column")
        notes += self.notes
        rows, self.roles = combine_rows(joined.rows, self.roles, self.combine, self.table.source, notes)
        used = len(self.table.rows) - sum(map(len, joined.unmatched.values()))
        files = f"{len(rows)} of {len(names)} files have a row"
        notes.append(f"labels joined on {joined.way}: {files}, {used} of {len(self.table.rows)} rows have a file")
        notes += joined.notes
        return [FileItem(name, rows.get(name, {})) for name in names if name in rows or not self.filters]
