"""The fields of slides from tables: one row per slide, whose repeated rows are merged as in `encoders ingest folder`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from encoders.ingest.label_table import ColumnRoles, Role, assign_roles, find_column, find_join_column
from encoders.ingest.options import CombineMode
from encoders.ingest.tables.combine import CombineRule, combine_rows, find_reader_column
from encoders.ingest.tables.file_finder import FileFinder
from encoders.ingest.tables.join_images import JoinWay, Match, by_identifier, join_images
from encoders.ingest.tables.load_tables import Labels, is_several, load_tables
from encoders.ingest.wsi.quality import TileQuality
from encoders.runtime.entry_names import check_labels
from encoders.runtime.errors import InputError
from encoders.runtime.unknown_values import is_unknown

SLIDE_COLUMNS_OF_TABLES = ("slide", "slide_id")  # after "file", and before the usual names of other columns of files
MPP_COLUMN = "mpp"


@dataclass(frozen=True)
class SlideFields:
    """What the user states about a slide, by command line, path and table."""

    mpp: float | None = None
    index: Mapping[str, str] = field(default_factory=dict)  # patient, split, study, slide
    meta: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TableJoin:
    """How several tables, and several rows of one slide, become one row per slide."""

    on: Sequence[str] = ()  # columns on which tables are joined; with one table, the column that names slides
    combine: CombineMode = "error"  # what becomes of rows of one slide that disagree
    reader: str | None = None  # column of readers, who have one vote each


def apply_slide_table(
    fields: Mapping[str, SlideFields],
    sources: Mapping[str, str],
    labels: Labels,
    label: Sequence[str],
    meta: Sequence[str],
    join: TableJoin,
    notes: list[str],
    root: Path,
) -> dict[str, SlideFields]:
    """The slides that the table names, with its fields; slides without a row are left out and counted.

    fields: of the slides to look up.  sources: name of every slide -> its path relative to `root`.  labels: table or tables.
    label, meta: columns.  The table names a slide by path, file name, name without suffix, or name of its store; with --pattern, also by
    the study or patient.
    Raises InputError if no row names a slide, and if rows of one slide disagree in a way that `join` does not resolve."""
    table = load_tables(labels, join.on, notes)
    columns = table.columns
    ways = [
        by_slide(fields, sources, FileFinder(list(sources.values()), root.resolve().as_posix(), table.folders)),
        *by_path_groups(fields),
    ]
    named: dict[Role, str | None] = {"slide": "", "file": choose_slide_column(columns, join, labels, len(ways) > 1)}
    role = assign_roles(columns, named, list(label), list(meta), "call it file or slide")
    if taken := [name for name in role.meta if name in TileQuality._fields]:
        raise InputError(f"the column {taken[0]!r} of {table.source} has the name of a measure of tiles; rename it")
    notes.extend(role.describe(columns, [MPP_COLUMN]))
    joined = join_images(table, role.file, list(fields), ways, "--on")
    role = role.without(role.file, joined.way)
    rule = CombineRule(join.combine, find_reader_column(columns, join.reader))
    fixed = [MPP_COLUMN] if MPP_COLUMN in columns else []
    rows, role = combine_rows(joined.rows, role, rule, table.source, notes, fixed, "slide")
    out = {name: add_row(fields[name], row, role, table.source) for name, row in rows.items()}
    left = [name for name in fields if name not in out]
    missing = f"{sum(map(len, joined.unmatched.values()))} of them without a slide{format_first(list(joined.unmatched))}"
    notes.append(f"{len(table.rows)} rows, {missing}; {len(left)} slides without a row{format_first(left)}")
    notes.extend(joined.notes)
    return dict(sorted(out.items()))


def add_row(known: SlideFields, row: Mapping[str, str], role: ColumnRoles, source: str) -> SlideFields:
    """The fields of a slide with those of its row. Raises InputError for a class that cannot be seen as it is."""
    check_labels({column: row[column] for column in role.label})
    index = {part: row[c] for part, c in role.identity.items() if not is_unknown(row[c]) or part not in known.index}
    return SlideFields(
        known.mpp or read_mpp(row, source),
        {**known.index, **index},
        {column: row[column] for column in role.meta},
        {**known.labels, **{column: row[column] for column in role.label}},
    )


def choose_slide_column(columns: list[str], join: TableJoin, labels: Labels, by_patient: bool) -> str | None:
    """The column whose values are slides; None if `assign_roles` should report that there is none.

    by_patient: whether the paths tell the patient or study, so that a column of these will do."""
    if join.on and not is_several(labels):
        return join.on[0]
    if "file" in columns:
        return "file"
    usual = next((c for c in columns if c.lower() in SLIDE_COLUMNS_OF_TABLES), None) or find_column(columns, None, "file")
    return usual or (find_join_column(columns) if by_patient else None)


def by_slide(fields: Mapping[str, SlideFields], sources: Mapping[str, str], finder: FileFinder) -> JoinWay:
    """Join on paths, file names, names without suffix, and names of stores. A slide that is not in `fields` joins nothing."""
    names = {source: name for name, source in sources.items()}

    def match(values: Sequence[str]) -> Match:
        found = finder.match(values)
        slides = {value: name for value in values if (name := names.get(found.find(value), value)) in fields}
        reasons = {value: reason for value, reason in found.reasons.items() if value not in slides}
        return {value: [name] for value, name in slides.items()}, reasons, [value for value in found.by_end if value in slides]

    return JoinWay("file", match, list(sources.values()))


def by_path_groups(fields: Mapping[str, SlideFields]) -> list[JoinWay]:
    """Join on what --pattern finds in the paths."""
    parts = [part for part in ("study", "patient") if any(part in each.index for each in fields.values())]
    return [by_identifier(part, {name: each.index.get(part, "") for name, each in fields.items()}) for part in parts]


def format_first(names: Sequence[str]) -> str:
    """The text ` (first: NAME)`, or "" without names."""
    return f" (first: {names[0]})" if names else ""


def read_mpp(row: Mapping[str, str], source: str) -> float | None:
    """The value of the column mpp; None if there is no such column, or no value."""
    text = row.get(MPP_COLUMN, "")
    if is_unknown(text):
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.01 <= value <= 50:
        raise InputError(f"{source}: mpp is {text!r}; expected micrometres per pixel, e.g. 0.25")
    return value
