"""The table or tables that `--labels` names, as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from encoders.ingest.tables.derived_columns import derive_columns
from encoders.ingest.tables.join_tables import join_tables
from encoders.ingest.tables.list_columns import ListColumn, expand_lists
from encoders.ingest.tables.table import Table, read_table
from encoders.runtime.errors import InputError


@dataclass(frozen=True)
class TableFile:
    """A table in a file.  columns: names of the first ones, of a file without a line of names."""

    path: Path
    columns: tuple[str, ...]


AnyTable = str | Path | TableFile
Labels = AnyTable | Sequence[AnyTable]  # one file or several


def load_tables(
    labels: Labels,
    on: Sequence[str],
    notes: list[str],
    folder: Path | None = None,
    derive: Sequence[str] = (),
    lists: ListColumn | None = None,
) -> Table:
    """The tables joined on the columns `on`; what was assumed and left out is added to `notes`.

    folder: where a table is looked for too.  lists: lists of findings that become columns.
    derive: comparisons that become columns, see `derived_columns`.
    Raises InputError for tables that cannot be read or joined, and for one without rows."""
    files = [labels] if isinstance(labels, AnyTable) else list(labels)
    named = [each if isinstance(each, TableFile) else TableFile(Path(each), ()) for each in files]
    tables = [read_table(locate_table(each.path, folder, notes), each.columns) for each in named]
    table = join_tables(tables, on if len(tables) > 1 else ())
    if not table.rows:
        raise InputError(f"{table.source} has no rows; expected a line with the names of the columns, then one row per image")
    table = derive_columns(expand_lists(table, lists), derive)
    notes += table.notes
    return table


def locate_table(path: Path, folder: Path | None, notes: list[str]) -> Path:
    """The path, or the one in the folder if only that exists."""
    if folder is None or path.exists() or not (folder / path).exists():
        return path
    notes.append(f"labels are read from {folder / path}")
    return folder / path


def is_several(labels: Labels) -> bool:
    """Whether more than one table is named."""
    return not isinstance(labels, AnyTable) and len(labels) > 1


def name_columns_of(paths: Sequence[Path] | None, names: str | None) -> list[AnyTable] | None:
    """The tables of the command line, with the names of `--column-names` if it is given. Raises InputError for names without a table."""
    if not names:
        return list(paths) if paths else None
    if not paths or len(paths) > 1:
        raise InputError(f"--column-names names the columns of one table, and --labels names {len(paths or ())}")
    return [TableFile(paths[0], tuple(name.strip() for name in names.split(",")))]
