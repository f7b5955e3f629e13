"""One table, whatever its format: the same cells from CSV, TSV, Excel and Parquet, and everything left out is counted."""

import gzip
import io
import sys
import time
import zipfile

import openpyxl
import pytest

from encoders.ingest.tables.table import read_table
from encoders.runtime.errors import InputError

COLUMNS = ["file", "age", "finding", "note"]
ROWS = [["a.png", "61", "Mass|Nodule", "well, then"], ["b.png", "", "No Finding", 'a "quoted" word'], ["007", "1.5", "Früh", "two\nlines"]]


def as_csv(separator=",", columns=COLUMNS, rows=ROWS, end="\n"):
    quoted = [['"' + cell.replace('"', '""') + '"' if set(cell) & set(',;\t"\n') else cell for cell in row] for row in [columns, *rows]]
    return end.join(separator.join(row) for row in quoted) + end


def as_workbook(rows, **sheets):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for name, content in sheets.items():
        sheet = book.create_sheet(name)
        for row in content:
            sheet.append(row)
    book.save(out := io.BytesIO())
    return out.getvalue()


def zipped(data, name="inner.csv"):
    with zipfile.ZipFile(out := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return out.getvalue()


FORMATS = {
    "comma.csv": as_csv().encode(),
    "semicolon.csv": as_csv(";").encode(),
    "tab.tsv": as_csv("\t").encode(),
    "bom.csv": as_csv().encode("utf-8-sig"),
    "bom_semicolon.csv": as_csv(";", end="\r\n").encode("utf-8-sig"),
    "utf16_le.csv": b"\xff\xfe" + as_csv("\t").encode("utf-16-le"),
    "utf16_be.csv": b"\xfe\xff" + as_csv(";").encode("utf-16-be"),
    "windows.csv": as_csv(end="\r\n").encode(),
    "stated.csv": ("sep=;\r\n" + as_csv(";", end="\r\n")).encode(),
    "plain.csv.gz": gzip.compress(as_csv().encode()),
    "mislabeled.csv": gzip.compress(as_csv(";").encode("utf-8-sig")),
    "kaggle.csv.zip": zipped(as_csv().encode()),
    "book.xlsx": as_workbook([COLUMNS, ["a.png", 61, *ROWS[0][2:]], ["b.png", None, *ROWS[1][2:]], ["007", 1.5, *ROWS[2][2:]]]),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_cells(tmp_path, name):
    (tmp_path / name).write_bytes(FORMATS[name])
    table = read_table(tmp_path / name)
    assert table.columns == COLUMNS
    assert [[cell.replace("\r", "") for cell in row.values()] for row in table.rows] == ROWS
    assert table.notes == []


def test_parquet_gives_the_same_cells_and_lists_as_json(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    columns = {"id": [1, 2, None], "x": [1.0, float("nan"), None], "seen": [True, False, None], "list": [["a", "b"], [], None]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    rows = [list(row.values()) for row in read_table(tmp_path / "t.parquet").rows]
    assert rows == [["1", "1", "1", '["a", "b"]'], ["2", "", "0", "[]"]]  # the third row is empty


def test_a_missing_reader_of_parquet_is_one_clear_error(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").write_bytes(b"PAR1" + b"\1" * 20 + b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match="pip install pyarrow"):
        read_table(tmp_path / "t.parquet")


def test_empty_rows_and_columns_of_excel_are_left_out_and_counted(tmp_path):
    (tmp_path / "e.csv").write_text("file,label,,\na.png,1,,\n,,,\nb.png,0,,,,\n  , ,,\n\n,,,\n")
    table = read_table(tmp_path / "e.csv")
    assert (table.columns, len(table.rows)) == (["file", "label"], 2)
    assert table.notes == ["e.csv: 3 empty rows left out"]
    (tmp_path / "e.xlsx").write_bytes(as_workbook([["file", "label", None], ["a", 1], [None, None], ["b", 0]], notes=[["x"]]))
    book = read_table(tmp_path / "e.xlsx")
    assert [list(row.values()) for row in book.rows] == [["a", "1"], ["b", "0"]]
    assert any("'notes'" in note for note in book.notes)
    assert "e.xlsx: 1 empty rows left out" in book.notes


def test_a_column_without_name_is_kept_under_a_name(tmp_path):
    (tmp_path / "p.csv").write_text(",file\n0,a.png\n1,b.png\n")
    table = read_table(tmp_path / "p.csv")
    assert table.rows == [{"unnamed_1": "0", "file": "a.png"}, {"unnamed_1": "1", "file": "b.png"}]


def test_a_separator_inside_names_of_columns_does_not_mislead(tmp_path):
    (tmp_path / "n.csv").write_text("Image Index,Image[Width,Height],Age,\n1.png,2,3,4,\n")  # the header of ChestX-ray14
    assert read_table(tmp_path / "n.csv").columns == ["Image Index", "Image[Width", "Height]", "Age"]
    (tmp_path / "s.csv").write_text("file;size[x,y,z];label\n1.png;4,5,6;1\n2.png;4,5,6;0\n")
    assert read_table(tmp_path / "s.csv").columns == ["file", "size[x,y,z]", "label"]
    (tmp_path / "d.csv").write_text("file;dose\n1.png;0,5\n2.png;1,5\n")
    assert read_table(tmp_path / "d.csv").rows[0] == {"file": "1.png", "dose": "0,5"}


@pytest.mark.parametrize(("data", "name"), [(b"\xe9t\xe9", "Windows-1252"), (b"\x81\xe9", "Latin-1")])
def test_a_file_that_is_not_utf8_is_read_and_reported(tmp_path, data, name):
    (tmp_path / "w.csv").write_bytes(b"file,label\na.png," + data + b"\n")
    table = read_table(tmp_path / "w.csv")
    assert "é" in table.rows[0]["label"]
    assert any(f"read as {name}" in note and "line 2" in note for note in table.notes)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\n , \n", "is empty"),
        (b"a,a\n1,2\n", "names 'a' more than once"),
        (b"a,b\n1\n", "line 2: 1 values for 2 columns"),
        (b"a,b\n1,2,3\n", "line 2: 3 values for 2 columns"),
        (b'a,b\n1,"open\n2,3\n4,5\n', "never closed"),
        (b"a,b\n1,\0\n", "not a text file"),
        (gzip.compress(b"a,b\n1,2\n" * 99)[:-12], "gzip and damaged"),
        (b"PK\x03\x04 nothing", "cannot be read"),
        (b"PAR1 nothing", "not a readable Parquet"),
        (b"\xd0\xcf\x11\xe0 nothing", "not a readable workbook"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_the_reason(tmp_path, data, message):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "t.csv")


def test_an_archive_of_several_files_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("a.csv", "a\n1\n")
        archive.writestr("b.csv", "b\n1\n")
    with pytest.raises(InputError, match="archive of 2 files"):
        read_table(tmp_path / "t.zip")


def test_a_long_cell_is_read(tmp_path):
    mask = "1 2 " * 100_000  # a run-length encoded mask
    (tmp_path / "m.csv").write_text(f"id,mask\na,{mask}\n")
    assert read_table(tmp_path / "m.csv").rows[0]["mask"] == mask.strip()


def test_a_large_table_is_read_in_a_few_seconds_of_cpu_time(tmp_path):
    with (tmp_path / "n.csv").open("w") as file:
        file.write("file,finding,patient,age\n")
        file.writelines(f"{i:08d}.png,A|B,{i // 4},50\n" for i in range(112_120))
    start = time.process_time()
    assert len(read_table(tmp_path / "n.csv").rows) == 112_120
    assert time.process_time() - start < 10
