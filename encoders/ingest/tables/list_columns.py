"""Columns of 0 and 1 from the lists of findings in a column of a table: `--list-column Labels --finding pneumonia,effusion`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from encoders.ingest.label_lists import describe_counts, holds_lists, list_items, read_findings
from encoders.ingest.tables.table import Table
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.json_types import Json


@dataclass(frozen=True)
class ListColumn:
    """A column of lists and the findings that become columns.  separator: of cells without brackets; None: found in the column."""

    column: str
    findings: tuple[str, ...]
    separator: str | None = None

    def as_json(self) -> dict[str, Json]:
        """What a recipe records."""
        return {"list_column": self.column, "findings": list(self.findings), "list_separator": self.separator}


def parse_list_options(column: str | None, findings: Sequence[str], separator: str | None) -> ListColumn | None:
    """The options --list-column, --finding and --list-separator; None without any of them.

    findings: one option is divided at commas, of several each is one finding.  Raises InputError if one of them stands alone."""
    names = [part.strip() for part in findings[0].split(",")] if len(findings) == 1 else [name.strip() for name in findings]
    names = [name for name in names if name]
    if column is None:
        if names or separator is not None:
            raise InputError("--finding and --list-separator need the column with the lists; pass --list-column NAME too")
        return None
    if separator == "":
        raise InputError("--list-separator is empty; write what divides the findings, e.g. --list-separator ';', or leave it out")
    return ListColumn(column, tuple(names), separator and separator.replace("\\n", "\n").replace("\\t", "\t"))


def expand_lists(table: Table, lists: ListColumn | None) -> Table:
    """The table with a column for every finding: 1 where the list names it, 0 where it does not, empty where the list is empty.

    Raises InputError for an unknown column, a finding that no list names, a name that is taken, and without findings: the error lists them.
    """
    if lists is None:
        return table
    if lists.column not in table.columns:
        raise unknown_name_error("column", lists.column, table.columns, "(for --list-column)")
    cells = [row[lists.column] for row in table.rows]
    if not lists.findings:
        raise InputError(f"--list-column needs the findings to store; pass --finding a,b. {describe_lists(lists.column, cells)}")
    if taken := [name for name in lists.findings if name in table.columns]:
        raise InputError(f"--finding {taken[0]}: {table.source} has a column {taken[0]!r} already; store it with --label-column")
    found = read_findings(lists.column, cells, lists.findings, lists.separator)
    rows = [{**row, **{name: values[i] for name, values in found.values.items()}} for i, row in enumerate(table.rows)]
    notes = [*table.notes, *found.describe(lists.column)]
    return replace(table, columns=[*table.columns, *lists.findings], rows=rows, notes=notes)


def describe_lists(column: str, cells: Sequence[str]) -> str:
    """A sentence about what the lists of a column hold."""
    counts = list_items(cells)
    return f"The lists of column {column!r} hold {describe_counts(counts)}" if counts else f"Column {column!r} holds no finding"


def list_notes(table: Table, labels: Sequence[str]) -> list[str]:
    """A sentence for each label column that holds lists, which as classes would be one class per combination."""
    notes = []
    for name in labels:
        cells = [row[name] for row in table.rows]
        if holds_lists(cells):
            notes.append(
                f"warning: label column {name!r} holds lists of findings, and every combination becomes a class; for a column of 0 and 1 "
                f"per finding, pass --list-column {name!r} --finding NAME,NAME here or to `transfer tasks add`. "
                + describe_lists(name, cells)
            )
    return notes
