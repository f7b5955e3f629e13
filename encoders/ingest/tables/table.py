"""A table of text cells from a file: CSV, TSV, Excel, OpenDocument or Parquet, plain or compressed with gzip or zip.

The content decides on the format, not the suffix.
"""

import gzip
import io
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from encoders.ingest.list_files import describe_bad_file
from encoders.ingest.tables.binary_file import parse_parquet, parse_workbook
from encoders.ingest.tables.text_file import Cells, parse_text_table
from encoders.runtime.errors import InputError
from encoders.runtime.files import read_at_most
from encoders.runtime.read_errors import READ_ERRORS, describe_reason

TableRow = dict[str, str]  # column -> cell, without spaces around it
MAX_TABLE_BYTES = 1 << 30  # bytes of a compressed table
LONGEST_NAME, LONGEST_EXAMPLE = 1000, 100  # characters of the name of a column; of a cell in a message
SAMPLED_ROWS = 200  # below the first line, to find out whether it is a row
GZIP, ZIP, PARQUET, OLD_WORKBOOK = b"\x1f\x8b", b"PK\x03\x04", b"PAR1", b"\xd0\xcf\x11\xe0"


@dataclass(frozen=True)
class Table:
    """A table in memory.  source: the file or files, for messages.  notes: what was left out or assumed while reading."""

    source: str
    columns: list[str]
    rows: list[TableRow]
    notes: list[str] = field(default_factory=list)

    def with_rows(self, rows: list[TableRow]) -> "Table":
        """The same table with other rows."""
        return replace(self, rows=rows)

    @property
    def folders(self) -> list[str]:
        """The absolute folders of its files, in which paths that they name may begin."""
        return list(dict.fromkeys(Path(part).absolute().parent.resolve().as_posix() for part in self.source.split(" + ")))

    @property
    def file_name(self) -> str:
        """The source without its folders, for notes."""
        return " + ".join(Path(part).name for part in self.source.split(" + "))


def read_table(path: str | Path, columns: Sequence[str] = ()) -> Table:
    """The table in a file. Empty rows, and columns without name and content (both usual in Excel), are left out and counted.

    columns: names of the first ones, of a file without a line of names.
    Raises InputError if the file is missing or unreadable, if columns lack a name or share one, if the first line is a row although it
    should have the names, or if a row has too many or few cells."""
    path, notes = Path(path), list[str]()
    lines = parse_table_bytes(read_decompressed(path), path, notes)
    start = next((i for i, line in enumerate(lines) if any(map(str.strip, line))), None)
    if start is None:
        raise InputError(f"{path} is empty; expected a line with the names of the columns, then one row per image")
    if columns:
        check_column_names(columns, lines[start], path)
        lines, start = [[*columns, *[""] * (len(lines[start]) - len(columns))], *lines[start:]], 0
    head = [name.strip() for name in lines[start]]
    if not columns and is_row(head, lines[start + 1 : start + 1 + SAMPLED_ROWS]):
        raise InputError(
            f"the first line of {path} is a row ({','.join(head)[:60]}) and not the names of the columns; name them in order, e.g. "
            "--column-names file,label (those after the last name may be left out)"
        )
    named, width = name_columns(head, lines[start + 1 :], path, notes), len(head)
    rows, empty = [], 0
    for number, line in enumerate(lines[start + 1 :], start=start + 2):
        cells = [cell.strip() for cell in line]
        if not any(cells):
            empty += bool(cells)
            continue
        if len(cells) != width:
            cells = fit_width(cells, width, max(named) + 1, path, number)
        rows.append({name: cells[i] for i, name in named.items()})
    if empty:
        notes.append(f"{path.name}: {empty} empty rows left out")
    return Table(str(path), list(named.values()), rows, notes)


def check_column_names(columns: Sequence[str], line: Sequence[str], path: Path) -> None:
    """Raises InputError for more names than the file has columns, and for a file that has these names in its first line."""
    if len(columns) > len(line):
        names = f"{len(columns)} names ({', '.join(columns)})"
        raise InputError(f"--column-names has {names} for {len(line)} columns of {path}: {','.join(line)}")
    if {name.casefold() for name in columns} <= {cell.strip().casefold() for cell in line}:
        raise InputError(f"{path} has the names of its columns in its first line; leave --column-names out")


def is_row(head: Sequence[str], rows: Cells) -> bool:
    """Whether the first line is a row: a cell is numbered as all others of its column are (test_001 above test_002), and another cell is a
    value of its column."""
    below = [[line[i].strip() for line in rows if len(line) > i] for i in range(len(head))]
    numbered = [i for i, cell in enumerate(head) if re.search("[^0-9]", cell) and re.search("[0-9]", cell) and is_numbered(cell, below[i])]
    return any(cell and cell in below[k] and k != i for i in numbered for k, cell in enumerate(head))


def is_numbered(cell: str, below: Sequence[str]) -> bool:
    """Whether several texts differ from the cell only in numbers."""
    shapes = {re.sub("[0-9]+", "0", text) for text in below}
    return len({*below}) > 2 and shapes == {re.sub("[0-9]+", "0", cell)}


def read_decompressed(path: Path) -> bytes:
    """The content of a file, decompressed. Raises InputError if it cannot be read."""
    if (problem := describe_bad_file(path)) and not path.is_fifo():  # a pipe is `--labels <(command)`
        raise InputError(f"cannot read the labels {path}, which {problem}")
    try:
        data = path.read_bytes()
        if data.startswith(GZIP):
            data = decompress_limited(data, path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is compressed with gzip and damaged (copied in part?): {describe_reason(error)}") from error
    except OSError as error:
        raise InputError(f"cannot read the labels {path}: {error.strerror}") from error
    return unzip_single_file(data, path) if data.startswith(ZIP) else data


def decompress_limited(data: bytes, path: Path) -> bytes:
    """The content of a gzip file. Raises InputError if it exceeds MAX_TABLE_BYTES bytes: a few kilobytes can stand for gigabytes."""
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        content = read_at_most(file, MAX_TABLE_BYTES + 1)
    if len(content) > MAX_TABLE_BYTES:
        raise too_large_error(path)
    return content


def too_large_error(path: Path) -> InputError:
    """The error for a compressed table that is not a table."""
    return InputError(f"{path} has more than {MAX_TABLE_BYTES >> 20} MB when it is unpacked; unpack it yourself if it is a table")


def unzip_single_file(data: bytes, path: Path) -> bytes:
    """The only file of a zip archive; a workbook, which is an archive of its own, stays as it is.

    Raises InputError for a damaged archive and for several files."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            if "[Content_Types].xml" in names or "mimetype" in names:
                return data
            names = [name for name in names if not name.endswith("/") and not name.startswith("__MACOSX")]
            if len(names) != 1:
                raise InputError(f"{path} is an archive of {len(names)} files; unpack it and name the table")
            if archive.getinfo(names[0]).file_size > MAX_TABLE_BYTES:
                raise too_large_error(path)
            return archive.read(names[0])
    except InputError:
        raise
    except READ_ERRORS as error:
        raise InputError(f"{path} is a zip archive or workbook and cannot be read: {describe_reason(error)}") from error


def parse_table_bytes(data: bytes, path: Path, notes: list[str]) -> Cells:
    """The cells of a decompressed file; its first bytes tell the format."""
    formats: dict[bytes, Callable[[], Cells]] = {
        ZIP: lambda: parse_workbook(data, path, notes),
        OLD_WORKBOOK: lambda: parse_workbook(data, path, notes),
        PARQUET: lambda: parse_parquet(data, path),
    }
    parse = next((read for magic, read in formats.items() if data.startswith(magic)), None)
    return parse() if parse else parse_text_table(data, path, notes)


def name_columns(head: list[str], lines: Cells, path: Path, notes: list[str]) -> dict[int, str]:
    """Position -> name of the columns. One without name is left out if it is empty, and otherwise called `unnamed_1` by its position.

    Raises InputError if two columns have one name, or if there is no name at all."""
    named = dict(enumerate(head))
    for i in [i for i, name in named.items() if not name]:
        if any(len(line) > i and line[i].strip() for line in lines):
            named[i] = f"unnamed_{i + 1}"
            notes.append(f"{path.name}: column {i + 1} has no name and is called {named[i]!r}")
        else:
            del named[i]
    if long := [i for i, name in named.items() if len(name) > LONGEST_NAME]:
        raise InputError(f"column {long[0] + 1} of {path} has a name of {len(head[long[0]]):,} characters; is the first line the names?")
    twice = [name for name, n in Counter(named.values()).items() if n > 1]
    if twice or not any(head):
        fault = f"it names {', '.join(map(repr, twice))} more than once" if twice else "it names none"
        raise InputError(f"the first line of {path} must name the columns, each once; {fault}: {','.join(head)[:100]!r}")
    return named


def fit_width(cells: list[str], width: int, needed: int, path: Path, number: int) -> list[str]:
    """A row cut or filled to `width` cells, if only empty cells are cut and only columns without a name (from `needed` on) are filled.

    Raises InputError otherwise: which cell belongs to which column is then unknown."""
    if needed <= len(cells) < width:
        return [*cells, *[""] * (width - len(cells))]
    if len(cells) > width and not any(cells[width:]):
        return cells[:width]
    raise InputError(f"{path}, line {number}: {len(cells)} values for {width} columns; quote values that contain the separator")


def first_values(values: Sequence[str], most: int = 2) -> str:
    """Up to `most` different values, quoted, for a message."""
    return ", ".join(repr(value[:LONGEST_EXAMPLE]) for value in list(dict.fromkeys(values))[:most]) or "none"
