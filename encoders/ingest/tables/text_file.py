"""The cells of a text file: CSV with commas, semicolons or tabs, in UTF-8, UTF-16 or Windows-1252."""

import codecs
import csv
import io
from itertools import islice
from pathlib import Path

from encoders.runtime.errors import InputError

COLUMN_SEPARATORS = ",;\t"
SAMPLED_LINES = 50  # lines that must agree on the number of columns for a separator to be chosen
LARGEST_CELL = 64 << 20  # characters; a run-length encoded mask can exceed the 131,072 of the standard library
TEXT_BYTES = bytes({*range(0x20, 0x100)} - {0x7F} | {*b"\t\n\v\f\r\x1a"})  # of text in an 8-bit encoding; the last ended files of DOS

Cells = list[list[str]]  # the first line has the names of the columns


def parse_text_table(data: bytes, path: Path, notes: list[str]) -> Cells:
    """The lines of a CSV as lists of cells. A fallback of the encoding is added to `notes`.

    Raises InputError for a file that is not text, and for a quote that is not closed."""
    text = decode_text(data, path, notes)
    stated, _, rest = text.partition("\n")
    separator = None
    if stated.strip().lower().startswith("sep=") and len(stated.strip()) == 5:  # Excel's way to state the separator
        separator, text = stated.strip()[4], rest
    elif stated.strip("\r").lower() == "sep=\t":
        separator, text = "\t", rest
    csv.field_size_limit(LARGEST_CELL)
    try:
        return parse_lines(text, separator or guess_separator(text))
    except csv.Error as error:
        raise InputError(
            f"{path} is not a CSV: {error}" + ("; a quote is opened and never closed" if "unexpected end" in str(error) else "")
        ) from error


def decode_text(data: bytes, path: Path, notes: list[str]) -> str:
    """The text of a file. Order: byte order mark, UTF-8, Windows-1252, Latin-1; the last two are reported in `notes`.

    Raises InputError if the bytes cannot be text."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise InputError(f"{path} starts as UTF-16 and is damaged: {error}; save it again as CSV in UTF-8") from error
    if b"\0" in data:
        raise InputError(f"{path} is not a text file (it has zero bytes); save the table as CSV in UTF-8, .xlsx or .parquet")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data.translate(None, TEXT_BYTES):
            raise InputError(
                f"{path} is not a text file (it has control characters and is not UTF-8); save the table as CSV in UTF-8"
            ) from error
        line = data.count(b"\n", 0, error.start) + 1
        name, text = decode_western(data)
        notes.append(f"{path.name} is not UTF-8 (byte {data[error.start]:#04x} in line {line}) and is read as {name}: check its accents")
        return text


def decode_western(data: bytes) -> tuple[str, str]:
    """The name of the 8-bit encoding, and the text. Windows-1252 has no character for five bytes; Latin-1 has one for each."""
    try:
        return "Windows-1252", data.decode("cp1252")
    except UnicodeDecodeError:
        return "Latin-1", data.decode("latin-1")


def guess_separator(text: str) -> str:
    """Tab, semicolon or comma: the first that divides all of the first lines into the same number of columns, at least two.

    Commas come last, because they also stand in numbers and names. If none does, the most frequent one of the first line."""
    for separator in reversed(COLUMN_SEPARATORS):
        try:
            lines = [line for line in islice(csv.reader(io.StringIO(text, newline=""), delimiter=separator), SAMPLED_LINES) if any(line)]
        except csv.Error:
            continue
        if lines and len(lines[0]) > 1 and len({len(line) for line in lines}) == 1:
            return separator
    written = list(islice((line for line in text.splitlines() if line.strip()), SAMPLED_LINES))
    head, below = written[0] if written else "", written[1:]
    if not any(separator in head for separator in COLUMN_SEPARATORS):  # the line of names was cut off, or there is one column
        return next((separator for separator in "\t;" if below and all(separator in line for line in below)), COLUMN_SEPARATORS[0])
    return max(COLUMN_SEPARATORS, key=head.count)


def parse_lines(text: str, separator: str) -> Cells:
    """The lines as lists of cells. Raises csv.Error for a quote that is never closed: everything after it would become one cell."""
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))  # text after a closing quote is tolerated
