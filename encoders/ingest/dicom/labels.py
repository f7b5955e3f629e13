"""A CSV of labels for DICOM files, joined on the SOPInstanceUID, the file or the patient, depending on the content of the column."""

from collections.abc import Sequence
from pathlib import Path

from encoders.ingest.folder import FileFinder, FileItem
from encoders.ingest.label_table import Role, assign_roles, filter_rows, find_column
from encoders.ingest.tables.table import read_table
from encoders.runtime.errors import InputError
from encoders.runtime.unknown_values import is_unknown
from encoders.store.patient_ids import normalise_id

UID_COLUMNS = ("sopinstanceuid", "sop_instance_uid", "sop instance uid", "image_uid", "instance_uid", "dicom_id", "image_id")


class DicomLabels:
    """The rows of a CSV and the roles of its columns."""

    def __init__(
        self,
        path: str | Path,
        join: str | None = None,
        patient: str | None = None,
        split: str | None = None,
        label: Sequence[str] = (),
        meta: Sequence[str] = (),
        filters: Sequence[str] = (),
    ):
        """join: column to join on.  patient: column that replaces PatientID.  Raises InputError for unknown columns."""
        self.path, self.filters = Path(path), list(filters)
        table = read_table(self.path)
        columns, rows = table.columns, table.rows
        join = join or next((name for name in columns if name.lower() in UID_COLUMNS), None) or find_lone_patient_column(columns)
        named: dict[Role, str | None] = {"file": join, "patient": patient or "", "split": split, "study": "", "slide": ""}
        self.roles = assign_roles(columns, named, list(label), list(meta))
        self.description = self.roles.describe(columns)
        self.rows = filter_rows(columns, rows, self.filters)
        self.by_value: dict[str, dict[str, str]] = {}
        for row in self.rows:
            if row[self.roles.file] in self.by_value:
                raise InputError(f"{path} has two rows with {self.roles.file} = {row[self.roles.file]!r}; keep one (or select with --only)")
            self.by_value[row[self.roles.file]] = row

    def needs_headers(self, names: Sequence[str]) -> bool:
        """Whether the column holds anything other than file names."""
        find, known = FileFinder(names), set(names)
        return any(find(value) not in known for value in self.by_value)

    def join_files(self, names: Sequence[str], headers: dict[str, dict[str, str]], notes: list[str]) -> list[FileItem]:
        """The files with their rows, joined on the key that matches the most files.

        Files without a row are kept with unknown labels; with a filter on the rows they are left out.
        Raises InputError if no row matches any file."""
        find = FileFinder(names)
        by_file = {find(value): row for value, row in self.by_value.items()}
        by_patient = {normalise_id(value): row for value, row in self.by_value.items() if not is_unknown(value)}
        ways = {
            "file": {name: by_file[name] for name in names if name in by_file},
            "SOPInstanceUID": {n: self.by_value[h["uid"]] for n in names if (h := headers.get(n)) and h["uid"] in self.by_value},
            "PatientID": {n: by_patient[h["patient"]] for n in names if (h := headers.get(n)) and h["patient"] in by_patient},
        }
        way = max(ways, key=lambda name: len(ways[name]))  # the first on a tie
        matched = ways[way]
        if not matched:
            raise InputError(
                f"none of the {len(self.by_value)} values in column {self.roles.file!r} of {self.path} is a file, SOPInstanceUID or "
                "PatientID of these files; name another column with --join-column"
            )
        used = len({row[self.roles.file] for row in matched.values()})
        notes += self.description
        notes.append(
            f"labels joined on {way}: {len(matched)} of {len(names)} files have a row, {used} of {len(self.by_value)} rows have a file"
        )
        return [FileItem(name, matched.get(name, {})) for name in names if name in matched or not self.filters]


def find_lone_patient_column(columns: Sequence[str]) -> str | None:
    """A column of patients to join on, if there is no column of files."""
    names = list(columns)
    return None if find_column(names, None, "file") else find_column(names, None, "patient")
