"""A table of labels: the role of each column."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from encoders.runtime.entry_names import check_label_name
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.json_types import Json

Role = Literal["file", "patient", "split", "study", "slide", "label"]
COLUMN_GUESSES: dict[Role, list[str]] = {
    "file": ["file", "filename", "file_name", "path", "image", "image_path", "img", "image_id", "image index"],
    "patient": ["patient", "patient_id", "patientid", "patient id", "subject", "subject_id", "case_id", "case"],
    "split": ["split", "subset", "partition"],
    "study": ["study", "study_id", "studyid"],
    "slide": ["slide", "slide_id", "slideid"],
    "label": ["label", "class", "target", "diagnosis"],
}
# Columns to join on if none names files, from an image to a patient.
UID_COLUMNS = ("sopinstanceuid", "sop_instance_uid", "sop instance uid", "image_uid", "instance_uid", "dicom_id", "image_id")
JOIN_GUESSES = [
    *UID_COLUMNS,
    *("imageid", "image_name", "image name", "file_path", "filepath"),
    *("seriesinstanceuid", "series_instance_uid", "series_uid", "series_id", "series"),
    *COLUMN_GUESSES["study"],
    *("studyinstanceuid", "study_instance_uid", "study_uid", "study id"),
    *("accessionnumber", "accession_number", "accession number", "accession"),
    *COLUMN_GUESSES["patient"],
]
META_COLUMNS = ["sex", "gender", "age", "view", "projection", "site"]


@dataclass(frozen=True)
class ColumnRoles:
    """The column of each role."""

    file: str
    patient: str | None
    split: str | None
    study: str | None
    slide: str | None
    label: tuple[str, ...]
    meta: tuple[str, ...]

    @property
    def identity(self) -> dict[str, str]:
        """The columns with one value per image that become columns of /index, by role; roles without a column are left out."""
        columns = {"patient": self.patient, "split": self.split, "study": self.study, "slide": self.slide}
        return {role: name for role, name in columns.items() if name}

    def without(self, column: str, role: str) -> "ColumnRoles":
        """The roles, with no column for the role patient, study or slide if it is this one."""
        return replace(
            self,
            patient=None if (role, column) == ("patient", self.patient) else self.patient,
            study=None if (role, column) == ("study", self.study) else self.study,
            slide=None if (role, column) == ("slide", self.slide) else self.slide,
        )

    def as_json(self) -> dict[str, Json]:
        """The roles for a recipe."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def describe(self, columns: list[str], used_by_caller: Sequence[str] = ()) -> list[str]:
        """The roles and the unused columns, in words. used_by_caller: columns that the caller reads itself."""
        single = {"file": self.file, **self.identity}
        roles = [f"{role} = column {name!r}" for role, name in single.items()]
        roles += [f"{role} = column {name!r}" for role, names in (("label", self.label), ("meta", self.meta)) for name in names]
        used = {*single.values(), *self.label, *self.meta}
        roles += [f"{name} = column {name!r}" for name in used_by_caller if name in columns and name not in used]
        unused = [name for name in columns if name not in {*used, *used_by_caller}]
        advice = "" if self.label or not unused else "; no label is stored, choose one with --label-column"
        return [f"columns: {', '.join(roles)}" + (f"; not used: {', '.join(unused)}" if unused else "") + advice]


def assign_roles(
    columns: list[str], named: Mapping[Role, str | None], label: list[str], meta: list[str], advice: str = "pass --file-column"
) -> ColumnRoles:
    """The named columns; for roles without a name, the first column with a usual name. "" as a name means no column.

    Raises InputError for a name that is not a column, and if there is no column of file names."""
    single: tuple[Role, ...] = ("file", "patient", "split", "study", "slide")
    chosen = {role: find_column(columns, named.get(role), role) for role in single}
    file = chosen["file"]
    if file is None:
        raise InputError(f"no column of file names found: {advice}; columns: {', '.join(columns)}")
    for name in (*label, *meta):
        if name and name not in columns:
            raise unknown_name_error("column", name, columns)
    taken = {name for name in (*chosen.values(), *label, *meta) if name}
    free = [name for name in columns if name not in taken]
    guess = find_column(free, None, "label")
    labels = [name for name in label if name] if label else [guess] if guess else []
    metas = [name for name in meta if name] if meta else [name for name in free if name.lower() in META_COLUMNS and name not in labels]
    for name in (*labels, *metas):
        check_label_name(name)
    return ColumnRoles(
        file=file,
        patient=chosen["patient"],
        split=chosen["split"],
        study=chosen["study"],
        slide=chosen["slide"],
        label=tuple(labels),
        meta=tuple(metas),
    )


def find_column(columns: list[str], name: str | None, role: Role) -> str | None:
    """The column of a role: the named one, or the first with a usual name, or None."""
    if name is not None:
        if name and name not in columns:
            raise unknown_name_error("column", name, columns, f"(for --{role}-column)")
        return name or None
    lower = {column.lower(): column for column in reversed(columns)}
    return next((lower[usual] for usual in COLUMN_GUESSES[role] if usual in lower), None)


def find_join_column(columns: list[str], first: Sequence[str] = ()) -> str | None:
    """The column whose values are images, or else series, studies, accession numbers or patients; None if none has a usual name.

    first: names in lower case that come before those of files."""
    lower = {column.lower(): column for column in reversed(columns)}
    return next((lower[usual] for usual in (*first, *COLUMN_GUESSES["file"], *JOIN_GUESSES) if usual in lower), None)
