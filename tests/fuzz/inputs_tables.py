"""Tables of labels: CSV and TSV, plain and compressed, Excel and Parquet, alone and joined to a folder of images.

The truth of a changed CSV is what the standard library reads from it, and that of a workbook what openpyxl reads: a changed letter is a
letter. The checksums of gzip, zip and Parquet pages tell changed bytes.
"""

import csv
import gzip
import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from encoders.ingest.folder import FolderSource
from encoders.ingest.tables.load_tables import load_tables
from encoders.ingest.tables.table import Table, read_table
from tests.fuzz.harness import FuzzClass, SilentlyWrong, require_equal
from tests.fuzz.ingested import ingest_all
from tests.fuzz.mutators import ODD_TEXTS, mutate_bytes, mutate_file, mutate_text, mutate_text_file

HEAD = ["file", "patient", "split", "label", "age", "view"]
MAGIC = (b"\x1f\x8b", b"PK", b"PAR1")  # of gzip, zip and workbooks, Parquet
LABELS = ("normal", "pneumonia")
ROWS = [[f"img_{i}.png", f"p{i // 2}", "train" if i < 5 else "test", LABELS[i % 2], str(40 + i), "PA"] for i in range(8)]


def to_csv(separator: str) -> bytes:
    return "".join(separator.join(row) + "\n" for row in [HEAD, *ROWS]).encode()


class TextTable(FuzzClass):
    """A CSV or TSV with changed lines, or with changed bytes."""

    def __init__(self, separator: str, in_bytes: bool):
        self.separator, self.in_bytes = separator, in_bytes
        self.name = f"table, {'CSV' if separator == ',' else 'TSV'}, {'bytes' if in_bytes else 'lines'}"

    def prepare(self, folder: Path) -> None:
        (folder / "a.csv").write_bytes(to_csv(self.separator))

    def mutate(self, folder: Path, rng: Random) -> str:
        path = folder / "a.csv"
        if self.in_bytes:
            return mutate_file(path, rng)
        return mutate_text_file(path, rng)

    def check(self, folder: Path) -> None:
        table = load_tables(folder / "a.csv", (), [])
        data = (folder / "a.csv").read_bytes()
        text = decode(data)
        lines = [[cell.strip() for cell in line] for line in csv.reader(io.StringIO(text, newline=""), delimiter=self.separator)]
        compare_cells(table, lines)


def decode(data: bytes) -> str:
    for name in ("utf-16",) if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252", "latin-1"):
        try:
            return data.decode(name)
        except UnicodeDecodeError:
            continue
    raise SilentlyWrong("bytes that are no text were read as a table")


def compare_cells(table: Table, lines: list[list[str]]) -> None:
    """Raises SilentlyWrong where a cell of the table is not under the name of its column."""
    filled = [line for line in lines if any(line)]
    head = filled[0]
    rows = [{name: cell for name, cell in zip(head, line, strict=False) if name} for line in filled[1:]]
    shown = [{name: row[name] for name in row if not name.startswith("unnamed_")} for row in table.rows]
    short = [{**dict.fromkeys(filter(None, head), ""), **row} for row in rows]
    require_equal(shown, short, "rows")


class PackedTable(FuzzClass):
    """A CSV in gzip or zip, a workbook or a Parquet file with changed bytes: all of them have checksums."""

    def __init__(self, kind: str, pack: Callable[[], bytes]):
        self.pack, self.name = pack, f"table, {kind}, bytes"

    def prepare(self, folder: Path) -> None:
        (folder / "a.bin").write_bytes(self.pack())

    def check(self, folder: Path) -> None:
        table = load_tables(folder / "a.bin", (), [])
        data = (folder / "a.bin").read_bytes()
        if not data.startswith(MAGIC):  # a text, for whoever does not know what it was
            return compare_cells(table, [[cell.strip() for cell in line] for line in csv.reader(io.StringIO(decode(data), newline=""))])
        require_equal([list(row.values()) for row in table.rows], ROWS, "rows")  # the names in a Parquet file have no checksum


def pack_gzip() -> bytes:
    return gzip.compress(to_csv(","))


def pack_zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("table.csv", to_csv(","))
    return out.getvalue()


def pack_workbook(rows: list[list[object]] | None = None) -> bytes:
    book, out = openpyxl.Workbook(), io.BytesIO()
    for row in rows or [HEAD, *ROWS]:
        book.active.append(row)
    book.save(out)
    return out.getvalue()


def pack_parquet() -> bytes:
    columns = {name: [row[i] for row in ROWS] for i, name in enumerate(HEAD)}
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, write_page_checksum=True)
    return out.getvalue()


class WorkbookParts(FuzzClass):
    """A workbook whose sheets were changed and packed again, so that the checksums are right. The truth is what openpyxl reads."""

    name = "table, XLSX, parts"

    def prepare(self, folder: Path) -> None:
        (folder / "a.xlsx").write_bytes(pack_workbook())

    def mutate(self, folder: Path, rng: Random) -> str:
        path = folder / "a.xlsx"
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        name = rng.choice([part for part in parts if part.endswith(("sheet1.xml", "sharedStrings.xml", "workbook.xml", "Types].xml"))])
        kind = rng.randrange(4)
        if kind == 0:
            del parts[name]
            change = "left out"
        elif kind == 1:
            parts[name], change = mutate_bytes(parts[name], rng)
        else:
            text = parts[name].decode().replace("><", ">\n<")
            text, change = mutate_text(text, rng)
            parts[name] = text.replace(">\n<", "><").encode("utf-8", "replace")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for part, data in parts.items():
                archive.writestr(part, data)
        return f"{name}: {change}"

    def check(self, folder: Path) -> None:
        read_table(folder / "a.xlsx")  # openpyxl refuses more than a reader that only wants the cells, so values are not compared


class OddCells(FuzzClass):
    """Workbooks and Parquet files with cells of other types: the text of a cell is that of its value."""

    name = "table, XLSX and Parquet, cells"
    all_valid = True  # any value may stand in a cell

    def prepare(self, folder: Path) -> None:
        self.write(folder, [row[4] for row in ROWS])

    def write(self, folder: Path, ages: list[object]) -> None:
        lines = [[*row[:4], age, row[5]] for row, age in zip(ROWS, ages, strict=True)]
        (folder / "a.xlsx").write_bytes(pack_workbook([list(HEAD), *lines]))
        columns = {name: [line[i] for line in lines] for i, name in enumerate(HEAD)}
        pq.write_table(pa.table(columns), folder / "a.parquet")

    def mutate(self, folder: Path, rng: Random) -> str:
        texts = [text for text in ODD_TEXTS if text.isprintable() and len(text) < 99 and text.strip() == text and not text.startswith("=")]
        values: list[object] = [rng.choice(texts) for _ in ROWS] if rng.random() < 0.5 else [rng.choice([None, 1, -3, 10**9]) for _ in ROWS]
        if rng.random() < 0.3:
            values = [rng.choice([0.5, 1e300, -2.0, None, 3.0]) for _ in ROWS]
        self.write(folder, values)
        return f"ages {values}"

    def check(self, folder: Path) -> None:
        read = [read_table(folder / name) for name in ("a.xlsx", "a.parquet")]
        book = openpyxl.load_workbook(folder / "a.xlsx").active
        truth = [to_text(row[4].value) for row in list(book.iter_rows())[1:]]
        for table in read:
            require_equal([row["age"] for row in table.rows], truth, table.source[-9:])


def to_text(value: object) -> str:
    if isinstance(value, float) and value == int(value) and abs(value) < 2**53:
        return str(int(value))
    return "" if value is None else str(value)


class JoinedTable(FuzzClass):
    """A CSV with changed lines, joined to the images that it names: no image has another label than its line says."""

    name = "ingest folder, CSV, lines"

    def prepare(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        for row in ROWS:
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / row[0])
        (folder / "a.csv").write_bytes(to_csv(","))

    def mutate(self, folder: Path, rng: Random) -> str:
        return mutate_text_file(folder / "a.csv", rng)

    def check(self, folder: Path) -> None:
        source = FolderSource(folder, folder / "a.csv", size=8)
        stored = ingest_all(source, folder / "out.h5")
        lines = [[cell.strip() for cell in line] for line in csv.reader(io.StringIO(decode((folder / "a.csv").read_bytes()), newline=""))]
        filled = [line for line in lines if any(line)]
        stated: dict[str, set[str]] = {}
        if "label" not in filled[0]:
            return
        at = filled[0].index("label")
        for line in filled[1:]:
            for cell in line:
                stated.setdefault(stem_of(cell), set()).add(line[at] if at < len(line) else "")
        for key, row in stored.items():
            if row.get("label") and str(row["label"]) not in stated.get(stem_of(key), ()):
                raise SilentlyWrong(f"{key} has the label {row['label']!r}, its lines say {stated.get(stem_of(key))}")


def stem_of(path: str) -> str:
    """The name of a file without folders and without its suffix, by which a table may name it."""
    return re.sub(r"\.[A-Za-z][A-Za-z0-9]{1,7}$", "", re.split(r"[/\\]", path)[-1])


CLASSES = [
    TextTable(",", False),
    TextTable(",", True),
    TextTable("\t", False),
    PackedTable("CSV in gzip", pack_gzip),
    PackedTable("CSV in zip", pack_zip),
    PackedTable("XLSX", pack_workbook),
    PackedTable("Parquet", pack_parquet),
    WorkbookParts(),
    OddCells(),
    JoinedTable(),
]
