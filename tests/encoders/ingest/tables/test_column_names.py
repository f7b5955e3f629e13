"""Tables without a line of names: recognised, and named by --column-names."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from encoders.cli.main import app
from encoders.ingest.tables.load_tables import TableFile, load_tables
from encoders.ingest.tables.table import read_table
from encoders.runtime.errors import InputError
from encoders.store.store import Store


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    "lines",
    [
        ["test_001,Tumor,IDC", "test_002,Normal,None", "test_003,Tumor,ILC", "test_004,Normal,None"],
        ["a/1.png;0", "a/2.png;1", "a/3.png;0", "a/4.png;1"],
        ["x,P1,7", "y,P2,9", "x,P3,7", "y,P4,8"],
    ],
)
def test_a_first_line_that_is_a_row_is_an_error_that_names_the_option(tmp_path, lines):
    with pytest.raises(InputError, match="first line of .* is a row .* --column-names file,label"):
        read_table(write(tmp_path / "t.csv", *lines))


@pytest.mark.parametrize(
    "lines",
    [
        ["file,label", "test_001,Tumor", "test_002,label", "test_003,label"],
        ["image1,image2", "a1,b1", "a2,b2", "a3,image2"],
        ["label,0,1,2", "5,0,1,7", "4,9,1,2", "3,0,1,1"],  # pixels in columns called by numbers
        ["label2,label3", "label2,label3"],
        ["q1,q2", "q3,x", "q4,y"],  # answers of two questions
    ],
)
def test_names_that_look_like_values_stay_names(tmp_path, lines):
    assert len(read_table(write(tmp_path / "t.csv", *lines)).rows) == len(lines) - 1


def test_names_are_given_to_the_first_columns(tmp_path):
    path = write(tmp_path / "t.csv", "test_001,Tumor,IDC", "test_002,Normal,None")
    notes = []
    table = load_tables(TableFile(path, ("slide", "label")), (), notes)
    assert table.columns == ["slide", "label", "unnamed_3"]
    assert [row["label"] for row in table.rows] == ["Tumor", "Normal"]
    assert any("column 3 has no name" in note for note in notes)
    with pytest.raises(InputError, match="--column-names has 4 names .* for 3 columns"):
        load_tables(TableFile(path, tuple("abcd")), (), [])
    named = write(tmp_path / "n.csv", "Slide,label,x", "test_001,Tumor,1")
    with pytest.raises(InputError, match="has the names of its columns in its first line"):
        load_tables(TableFile(named, ("slide", "label")), (), [])


def test_the_command_line_names_columns(tmp_path):
    (tmp_path / "in").mkdir()
    for k in range(4):
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (16, 16), dtype=np.uint8)).save(tmp_path / "in" / f"i{k}.png")
    path = write(tmp_path / "t.csv", *(f"i{k},{'sick' if k % 2 else 'well'}" for k in range(4)))
    words = ["ingest", "folder", str(tmp_path / "in"), str(tmp_path / "s.h5"), "--size", "0", "--workers", "1", "--labels", str(path)]
    done = CliRunner().invoke(app, [*words, "--column-names", "file, label"])
    assert done.exit_code == 0, done.output
    store = Store.open(tmp_path / "s.h5")
    assert [store.classes("label")[int(code)] for code in store.labels("label")] == ["well", "sick"] * 2
    done = CliRunner().invoke(app, [*words, "--labels", str(path), "--column-names", "file,label", "--overwrite"])
    assert isinstance(done.exception, InputError)
    assert "--column-names names the columns of one table" in str(done.exception)
