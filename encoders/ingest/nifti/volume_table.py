"""Labels of volumes from a table: a row names a file, its folder or its patient, and gives its columns to all slices."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from encoders.ingest.label_table import COLUMN_GUESSES, ColumnRoles, Role, assign_roles
from encoders.ingest.nifti.volume import volume_stem
from encoders.ingest.row_filter import filter_rows
from encoders.ingest.tables.table import TableRow, read_table
from encoders.runtime.errors import InputError


@dataclass(frozen=True)
class VolumeTable:
    """The rows of volumes. rows: volume (relative path) -> its row.  notes: how columns and rows were read."""

    roles: ColumnRoles
    rows: dict[str, TableRow]
    notes: list[str]


def read_volume_table(
    path: Path,
    volumes: Mapping[str, str],
    columns: Mapping[Role, str | None],
    label: Sequence[str] = (),
    meta: Sequence[str] = (),
    only: Sequence[str] = (),
) -> VolumeTable:
    """The table joined to the volumes. Volumes without a row are named in the notes and have no labels.

    volumes: relative path -> patient from the path, or "".
    Raises InputError if no row matches a volume, or if two rows of one volume differ in a column that is used."""
    table = read_table(path)
    named = dict(columns)
    if named.get("file") is None and not any(c.lower() in COLUMN_GUESSES["file"] for c in table.columns):
        named["file"] = next((c for c in table.columns if c.lower() in COLUMN_GUESSES["patient"]), None)  # a row per patient
    roles = assign_roles(table.columns, named, list(label), list(meta))
    filtered: list[str] = []
    rows = filter_rows(table.columns, table.rows, only, filtered)
    names = index_volumes(volumes)
    matched: dict[str, TableRow] = {}
    unmatched: list[str] = []
    used = [*roles.identity.values(), *roles.label, *roles.meta]
    for row in rows:
        found = match_volumes(row[roles.file], names)
        for volume in found:
            before = matched.setdefault(volume, row)
            if unequal := [name for name in used if before[name] != row[name]]:
                raise InputError(
                    f"{path} has two rows for {volume}, which differ in {unequal[0]!r}: {before[unequal[0]]!r} and {row[unequal[0]]!r}; "
                    "keep one, or select with --only"
                )
        if not found:
            unmatched.append(row[roles.file])
    without = sorted(volumes.keys() - matched.keys())
    if not matched:
        raise InputError(
            f"no row of {path} names a volume: its column {roles.file!r} has values like {rows[0][roles.file] if rows else ''!r}, the "
            f"volumes are called e.g. {next(iter(volumes), '')!r}; name another column with --file-column"
        )
    notes = [*table.notes, *roles.describe(table.columns), *filtered]
    notes.append(f"{len(rows) - len(unmatched)} of {len(rows)} rows name a volume, {len(matched)} of {len(volumes)} volumes have a row")
    notes += [f"{len(unmatched)} rows name no volume (first: {unmatched[0]!r})"] if unmatched else []
    notes += [f"{len(without)} volumes have no row and no labels from the table (first: {without[0]})"] if without else []
    return VolumeTable(roles, matched, notes)


def index_volumes(volumes: Mapping[str, str]) -> dict[str, set[str]]:
    """Name -> volumes with it: every suffix of the path with and without .nii.gz, the folders above, and the patient."""
    names: dict[str, set[str]] = defaultdict(set)
    for volume, patient in volumes.items():
        parts = PurePosixPath(volume).parts
        for k in range(len(parts)):
            tail = "/".join(parts[k:])
            names[tail].add(volume)
            names[volume_stem(tail)].add(volume)
        for folder in (*parts[:-1], patient):
            if folder:
                names[folder].add(volume)
    return names


def match_volumes(text: str, names: Mapping[str, set[str]]) -> list[str]:
    """The volumes that a cell names: by the longest suffix of the path in it, or by folder or patient; [] without any."""
    parts = PurePosixPath(text.replace("\\", "/")).parts
    for k in range(len(parts)):
        tail = "/".join(parts[k:])
        if found := names.get(tail) or names.get(volume_stem(tail)):
            return sorted(found)
    return []
