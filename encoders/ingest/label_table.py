"""A CSV of labels: which column is what, and the rows that are wanted."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from encoders.runtime.errors import InputError, unknown_name_error

COLUMN_GUESSES = {
    "file": ["file", "filename", "file_name", "path", "image", "image_path", "img", "image_id", "image index"],
    "patient": ["patient", "patient_id", "patientid", "patient id", "subject", "subject_id", "case_id", "case"],
    "split": ["split", "subset", "partition"],
    "study": ["study", "study_id", "studyid"],
    "slide": ["slide", "slide_id", "slideid"],
    "label": ["label", "class", "target", "diagnosis"],
}
META_COLUMNS = ["sex", "gender", "age", "view", "projection", "site"]


@dataclass(frozen=True)
class ColumnRoles:
    """Which column plays which part."""

    file: str
    patient: str | None
    split: str | None
    study: str | None
    slide: str | None
    label: tuple[str, ...]
    meta: tuple[str, ...]

    def said(self, columns: list[str], elsewhere: Sequence[str] = ()) -> list[str]:
        """What was taken for what, and what was left out, in words. elsewhere: columns that the caller uses by themselves."""
        told = [
            f"{role} = column {getattr(self, role)!r}" for role in ("file", "patient", "split", "study", "slide") if getattr(self, role)
        ]
        told += [f"{role} = column {name!r}" for role in ("label", "meta") for name in getattr(self, role)]
        used = {self.file, self.patient, self.split, self.study, self.slide, *self.label, *self.meta}
        told += [f"{name} = column {name!r}" for name in elsewhere if name in columns and name not in used]
        left = [name for name in columns if name not in {*used, *elsewhere}]
        none = "" if self.label or not left else "; no label is stored, --label-column names one"
        return [f"columns: {', '.join(told)}" + (f"; not used: {', '.join(left)}" if left else "") + none]


def read_label_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The column names and the rows. Raises InputError when the file is missing, is no CSV, or has rows of unlike length."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            head = file.readline()
            file.seek(0)
            lines = list(csv.reader(file, delimiter=(delimiter := guess_separator(head))))
    except OSError as wrong:
        raise InputError(f"cannot read the labels {path}: {wrong.strerror}") from wrong
    except (UnicodeDecodeError, csv.Error) as wrong:
        raise InputError(f"{path} is not a CSV in UTF-8: {wrong}") from wrong
    columns = [name.strip() for name in lines[0]] if lines else []
    if len(set(columns)) < len(columns) or not any(columns):
        raise InputError(f"the first line of {path} must name the columns, each once; it reads {head.strip()[:100]!r}")
    for number, line in enumerate(lines[1:], start=2):
        if line and len(line) != len(columns):
            raise InputError(
                f"{path}, line {number}: {len(line)} values for {len(columns)} columns; quote values that hold a {delimiter!r}"
            )
    return columns, [dict(zip(columns, map(str.strip, line), strict=True)) for line in lines[1:] if line]


def guess_separator(head: str) -> str:
    """What separates the columns of a table, from its first line: comma, semicolon or tab."""
    return max(",;\t", key=head.count)


def assign_roles(
    columns: list[str], given: dict[str, str | None], label: list[str], meta: list[str], advice: str = "pass --file-column"
) -> ColumnRoles:
    """The columns named, and where none is named the first that is usual for the part; "" as a name means none.

    Raises InputError for a name that is not a column, and when there is no column of file names."""
    chosen = {role: find_column(columns, given.get(role), role) for role in ("file", "patient", "split", "study", "slide")}
    if chosen["file"] is None:
        raise InputError(f"which column holds the file names? None has a usual name: {advice}; columns: {', '.join(columns)}")
    for name in (*label, *meta):
        if name and name not in columns:
            raise unknown_name_error("column", name, columns)
    taken = {name for name in (*chosen.values(), *label, *meta) if name}
    free = [name for name in columns if name not in taken]
    guess = find_column(free, None, "label")
    labels = [name for name in label if name] if label else [guess] if guess else []
    metas = [name for name in meta if name] if meta else [name for name in free if name.lower() in META_COLUMNS and name not in labels]
    return ColumnRoles(**chosen, label=tuple(labels), meta=tuple(metas))  # type: ignore[arg-type]


def find_column(columns: list[str], given: str | None, role: str) -> str | None:
    """The column for a part: the one named, or the first usual name that is there, or None."""
    if given is not None:
        if given and given not in columns:
            raise unknown_name_error("column", given, columns, f"(for --{role}-column)")
        return given or None
    lower = {name.lower(): name for name in reversed(columns)}
    return next((lower[name] for name in COLUMN_GUESSES[role] if name in lower), None)


def filter_rows(columns: list[str], rows: list[dict[str, str]], filters: list[str]) -> list[dict[str, str]]:
    """The rows in which every `column=value` holds. Raises InputError for an unknown column, and when no row is left."""
    for text in filters:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--only {text!r} is not column=value, e.g. --only split=train")
        if name not in columns:
            raise unknown_name_error("column", name, columns, "(for --only)")
        seen = sorted({row[name] for row in rows})
        rows = [row for row in rows if row[name] == value]
        if not rows:
            raise InputError(f"no row has {text}; values of {name!r}: {', '.join(seen[:10])}{', ...' if len(seen) > 10 else ''}")
    return rows
