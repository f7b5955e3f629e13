"""A CSV of labels for DICOM files, joined on the SOPInstanceUID, the file or the patient: whichever the column holds."""

from collections.abc import Sequence
from pathlib import Path

from encoders.ingest.folder import FileFinder, FileItem
from encoders.ingest.label_table import assign_roles, filter_rows, read_label_table
from encoders.runtime.errors import InputError

UID_COLUMNS = ("sopinstanceuid", "sop_instance_uid", "sop instance uid", "image_uid", "instance_uid", "dicom_id", "image_id")


class DicomLabels:
    """The rows of a CSV and the parts its columns play."""

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
        """join: the column to join on.  patient: a column that replaces PatientID.  Raises InputError for unknown columns."""
        self.path, self.filters = Path(path), list(filters)
        columns, rows = read_label_table(self.path)
        join = join or next((name for name in columns if name.lower() in UID_COLUMNS), None) or find_lone_patient_column(columns)
        given = {"file": join, "patient": patient or "", "split": split, "study": "", "slide": ""}
        self.roles = assign_roles(columns, given, list(label), list(meta))
        self.told = self.roles.said(columns)
        self.rows = filter_rows(columns, rows, self.filters)
        self.by_value: dict[str, dict[str, str]] = {}
        for row in self.rows:
            if row[self.roles.file] in self.by_value:
                raise InputError(f"{path} has two rows with {self.roles.file} = {row[self.roles.file]!r}; keep one (or choose with --only)")
            self.by_value[row[self.roles.file]] = row

    def needs_headers(self, names: Sequence[str]) -> bool:
        """Whether the column holds something else than file names."""
        find, known = FileFinder(names), set(names)
        return any(find(value) not in known for value in self.by_value)

    def joined(self, names: Sequence[str], headers: dict[str, dict[str, str]], notes: list[str]) -> list[FileItem]:
        """The files with their rows, by what fits the most files. Raises InputError when no row fits any file.

        Files without a row are kept, their labels unknown; with a filter on the rows they are left out."""
        find = FileFinder(names)
        by_file = {find(value): row for value, row in self.by_value.items()}
        ways = {
            "file": {name: by_file[name] for name in names if name in by_file},
            "SOPInstanceUID": {n: self.by_value[h["uid"]] for n in names if (h := headers.get(n)) and h["uid"] in self.by_value},
            "PatientID": {n: self.by_value[h["patient"]] for n in names if (h := headers.get(n)) and h["patient"] in self.by_value},
        }
        way = max(ways, key=lambda name: len(ways[name]))  # the first of equals
        found = ways[way]
        if not found:
            raise InputError(
                f"not one of the {len(self.by_value)} values in column {self.roles.file!r} of {self.path} is a file, SOPInstanceUID or "
                "PatientID of these files; name another column with --join-column"
            )
        used = len({row[self.roles.file] for row in found.values()})
        notes += self.told
        notes.append(
            f"labels joined on {way}: {len(found)} of {len(names)} files have a row, {used} of {len(self.by_value)} rows have a file"
        )
        return [FileItem(name, found.get(name, {})) for name in names if name in found or not self.filters]


def find_lone_patient_column(columns: Sequence[str]) -> str | None:
    """A column of patients to join on, where there is none of files."""
    from encoders.ingest.label_table import find_column

    names = list(columns)
    return None if find_column(names, None, "file") else find_column(names, None, "patient")
