"""The cells of a workbook (.xlsx, .xls, .ods) and of a Parquet file, as text."""

import io
import json
from datetime import date, datetime, time
from pathlib import Path

from encoders.ingest.tables.text_file import Cells
from encoders.runtime.errors import InputError
from encoders.runtime.read_errors import READ_ERRORS, describe_reason


def parse_workbook(data: bytes, path: Path, notes: list[str]) -> Cells:
    """The cells of the first sheet that has any; other sheets with content are named in `notes`.

    Raises InputError if the file is damaged or encrypted, or if no sheet has content."""
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError as error:
        raise missing_package_error(path, "python-calamine") from error
    try:
        book = CalamineWorkbook.from_filelike(io.BytesIO(data))
        sheets = {name: book.get_sheet_by_name(name).to_python(skip_empty_area=False) for name in book.sheet_names}
    except (CalamineError, *READ_ERRORS) as error:
        raise InputError(f"{path} is not a readable workbook: {describe_reason(error)}; save the table as CSV in UTF-8") from error
    filled = [name for name, rows in sheets.items() if any(cell not in ("", None) for row in rows for cell in row)]
    if not filled:
        raise InputError(f"{path} has no sheet with content")
    if len(filled) > 1:
        notes.append(f"{path.name}: sheet {filled[0]!r} is read; not read: {', '.join(map(repr, filled[1:]))}")
    return [[cell_text(cell) for cell in row] for row in sheets[filled[0]]]


def parse_parquet(data: bytes, path: Path) -> Cells:
    """The names of the columns and the rows. Lists and structures in cells become JSON.

    Raises InputError if the package is missing or the file is damaged."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_package_error(path, "pyarrow") from error
    try:
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
        table.validate(full=True)
        columns = [[cell_text(cell) for cell in column.to_pylist()] for column in table.columns]
    except (pa.ArrowException, *READ_ERRORS) as error:
        raise InputError(f"{path} is not a readable Parquet file: {describe_reason(error)}; copy it again, or save it as CSV") from error
    return [[str(name) for name in table.column_names], *map(list, zip(*columns, strict=True))]


def missing_package_error(path: Path, package: str) -> InputError:
    """The error for a format whose reader is not installed."""
    return InputError(f"{path} needs the package {package}, which is not installed: pip install {package}; or save the table as CSV")


def cell_text(value: object) -> str:
    """A typed cell as a CSV would have it: 3.0 is `3`, True is `1`, a date without a time is `2020-01-31`, missing values are empty."""
    if value is None or value != value or str(value) in ("<NA>", "NaT"):  # NaN is unequal to itself
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(sep=" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
