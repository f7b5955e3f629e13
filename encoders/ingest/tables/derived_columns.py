"""Columns of 0 and 1 from a comparison of another column with values: `pneumothorax=EncodedPixels!=-1`."""

import re
from collections.abc import Sequence
from dataclasses import replace

from encoders.ingest.tables.table import Table
from encoders.runtime.errors import InputError, unknown_name_error

COMPARISON = re.compile(r"(?P<name>[^=!]+)=(?P<column>.+?)(?P<sign>==|!=)(?P<values>.*)", re.DOTALL)


def derive_columns(table: Table, comparisons: Sequence[str]) -> Table:
    """The table with a column for every comparison: 1 where it holds, 0 where it does not, empty where the compared cell is empty.

    comparisons: `NAME=COLUMN==VALUE` or `NAME=COLUMN!=VALUE`; several values are separated by `|`.
    Raises InputError for another form, an unknown column, a name that is taken, and a comparison with the same result everywhere."""
    for text in comparisons:
        found = COMPARISON.fullmatch(text)
        if found is None:
            raise InputError(f"--derive {text!r}: expected NAME=COLUMN==VALUE or NAME=COLUMN!=VALUE, e.g. pneumothorax=EncodedPixels!=-1")
        name, column = found["name"].strip(), found["column"].strip()
        if column not in table.columns:
            raise unknown_name_error("column", column, table.columns, "(for --derive)")
        if name in table.columns:
            raise InputError(f"--derive {text!r}: {table.source} has a column {name!r} already; choose another name")
        values = {value.strip() for value in found["values"].split("|")}
        equal = found["sign"] == "=="
        cells = [str(int((row[column] in values) is equal)) if row[column] else "" for row in table.rows]
        if len(known := {*cells} - {""}) < 2:
            seen = sorted({row[column] for row in table.rows})
            raise InputError(
                f"--derive {text!r} is {'true' if '1' in known else 'false'} for every row; values of {column!r}: "
                f"{', '.join(repr(value[:30]) for value in seen[:10])}{', ...' if len(seen) > 10 else ''}"
            )
        note = f"column {name!r} = {column} {found['sign']} {found['values']}: {cells.count('1'):,} of {len(cells):,} rows"
        rows = [{**row, name: cell} for row, cell in zip(table.rows, cells, strict=True)]
        table = replace(table, columns=[*table.columns, name], rows=rows, notes=[*table.notes, note])
    return table
