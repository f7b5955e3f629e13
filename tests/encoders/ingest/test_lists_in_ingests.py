"""`--list-column`, `--finding` and `--only` of the ingest commands: stored labels, reports and errors."""

import h5py
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from encoders.cli.main import app
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from tests.encoders.ingest.array_files import random_images, write_clam
from tests.encoders.ingest.dicom_files import build_dicom, ramp, save_dicom

LISTS = ["['pneumonia', 'mass']", "['mass', 'pneumonia']", "[' mass ']", "['normal']", "", "['effusion' 'pneumonia']"]
PNEUMONIA, MASS = [1, 1, 0, 0, np.nan, 1], [1, 1, 1, 0, np.nan, 0]


def call(*words):
    done = CliRunner().invoke(app, ["ingest", *map(str, words), "--workers", "1"])
    if isinstance(done.exception, InputError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def write_rows(path, head, rows):
    path.write_text("\n".join([head, *(",".join(f'"{cell}"' for cell in row) for row in rows)]) + "\n")
    return path


@pytest.fixture
def folder(tmp_path):
    """Six images and a table with lists, views and ages."""
    (tmp_path / "src").mkdir()
    rng = np.random.default_rng(0)
    for k in range(6):
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(tmp_path / "src" / f"{k}.png")
    views, ages = ["PA", "AP", "LL", "PA", "AP", "PA"], [17, 18, 40, 90, 91, "unknown"]
    write_rows(tmp_path / "t.csv", "file,Labels,view,age", [(f"{k}.png", LISTS[k], views[k], ages[k]) for k in range(6)])
    return tmp_path


def test_findings_of_lists_become_labels(folder):
    out = folder / "o.h5"
    told = call("folder", folder / "src", out, "--labels", folder / "t.csv", "--list-column", "Labels", "--finding", "pneumonia,mass")
    store = Store.open(out)
    assert store.label_names() == ["mass", "pneumonia"]
    np.testing.assert_array_equal(store.labels("pneumonia"), PNEUMONIA)
    np.testing.assert_array_equal(store.labels("mass"), MASS)
    assert "lists in column 'Labels': pneumonia 3, mass 3 (of 6 cells)" in told
    assert "1 unknown: '' 1" in told
    assert store.attrs["recipe"]["list_column"] == "Labels"
    assert store.attrs["recipe"]["findings"] == ["pneumonia", "mass"]


def test_a_finding_with_a_comma_is_given_by_repeating_the_option(folder):
    cells = ["mass, left|nodule", "nodule|mass, left", "nodule", "x", "x", "x"]
    write_rows(folder / "t.csv", "file,L", [(f"{k}.png", cell) for k, cell in enumerate(cells)])
    words = ["--list-column", "L", "--finding", "mass, left", "--finding", "nodule"]
    call("folder", folder / "src", folder / "o.h5", "--labels", folder / "t.csv", *words)
    assert Store.open(folder / "o.h5").labels("mass, left").tolist() == [1, 1, 0, 0, 0, 0]


def test_lists_of_repeated_rows_are_combined(folder):
    rows = [("0.png", "mass"), ("0.png", "pneumonia|mass"), ("1.png", ""), ("1.png", "mass"), ("2.png", "mass|x")]
    write_rows(folder / "t.csv", "file,L", rows)
    words = ["folder", folder / "src", folder / "o.h5", "--labels", folder / "t.csv", "--list-column", "L", "--finding", "pneumonia,mass"]
    with pytest.raises(InputError, match=r"rows of image 0.png disagree on column 'pneumonia': '0' and '1'"):
        call(*words)
    call(*words, "--combine", "any")
    store = Store.open(folder / "o.h5")
    assert store.labels("pneumonia").tolist() == [1, 0, 0]
    assert store.labels("mass").tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--list-column", "Labls", "--finding", "mass"], "did you mean Labels"),
        (["--list-column", "Labels", "--finding", "pneumonai"], r"did you mean pneumonia\?$"),
        (["--list-column", "Labels"], r"pass --finding a,b. The lists of column 'Labels' hold mass 3, pneumonia 3, effusion 1, normal 1$"),
        (["--finding", "mass"], "pass --list-column NAME too"),
        (["--list-column", "Labels", "--finding", "mass,view"], "has a column 'view' already"),
    ],
)
def test_what_cannot_be_read_raises_with_the_findings(folder, words, message):
    with pytest.raises(InputError, match=message):
        call("folder", folder / "src", folder / "o.h5", "--labels", folder / "t.csv", *words)


def test_list_options_need_a_table(folder):
    with pytest.raises(InputError, match="pass --labels too"):
        call("folder", folder / "src", folder / "o.h5", "--list-column", "Labels", "--finding", "mass")


def test_a_label_column_of_lists_is_stored_and_its_findings_are_named_without_brackets(folder):
    told = call("folder", folder / "src", folder / "o.h5", "--labels", folder / "t.csv", "--label-column", "Labels")
    line = next(line for line in told.splitlines() if line.startswith("warning: label column 'Labels' holds lists"))
    assert line.endswith("The lists of column 'Labels' hold mass 3, pneumonia 3, effusion 1, normal 1")


@pytest.mark.parametrize(
    ("only", "kept", "told"),
    [
        ("view=PA|AP", [0, 1, 3, 4, 5], "PA 3, AP 2 rows"),
        ("age=18..90", [1, 2, 3], "1 rows without a number in 'age' are left out ('unknown' 1)"),
        ("age>=18", [1, 2, 3, 4], "2 rows are left out by --only age>=18"),
        ("pneumonia=1", [0, 1, 5], "3 rows are left out"),
    ],
)
def test_only_selects_rows_by_alternatives_ranges_and_findings(folder, only, kept, told):
    lists = ["--list-column", "Labels", "--finding", "pneumonia"]
    out = call("folder", folder / "src", folder / "o.h5", "--labels", folder / "t.csv", *lists, "--only", only)
    assert Store.open(folder / "o.h5").column("key").tolist() == [f"{k}.png" for k in kept]
    assert told in out


def test_dicom_takes_lists_and_ranges(tmp_path):
    for k in range(6):
        save_dicom(build_dicom(np.roll(ramp(), k), f"1.2.3.{k}", PatientID=f"P{k}"), tmp_path / "src" / f"{k}.dcm")
    write_rows(tmp_path / "t.csv", "SOPInstanceUID,Labels,age", [(f"1.2.3.{k}", LISTS[k], 20 * k) for k in range(6)])
    words = ["--labels", tmp_path / "t.csv", "--list-column", "Labels", "--finding", "pneumonia,mass"]
    told = call("dicom", tmp_path / "src", tmp_path / "o.h5", *words, "--only", "age=..40|90..")
    store = Store.open(tmp_path / "o.h5")
    assert store.column("key").tolist() == ["0.dcm", "1.dcm", "2.dcm", "5.dcm"]
    np.testing.assert_array_equal(store.labels("pneumonia"), np.array(PNEUMONIA)[[0, 1, 2, 5]])
    assert "--only age=..40|90..: ..40 3, 90.. 1 rows" in told
    with pytest.raises(InputError, match="requires a CSV of labels"):
        call("dicom", tmp_path / "src", tmp_path / "p.h5", "--list-column", "Labels", "--finding", "mass")


def test_hdf5_takes_lists_and_ranges_by_file_and_by_image(tmp_path):
    for k in range(6):
        write_clam(tmp_path / "patches" / f"s{k}.h5", n=2, seed=k)
    write_rows(tmp_path / "t.csv", "slide_id,Labels,age", [(f"s{k}", LISTS[k], 20 * k) for k in range(6)])
    lists = ["--list-column", "Labels", "--finding", "pneumonia,mass"]
    files = [tmp_path / "patches" / "*.h5", tmp_path / "o.h5", "--images", "imgs", "--coords", "coords", "--table", tmp_path / "t.csv"]
    call("hdf5", *files, *lists, "--only", "age<=60")
    store = Store.open(tmp_path / "o.h5")
    assert store.column("slide").tolist()[::2] == ["s0", "s1", "s2", "s3"]
    np.testing.assert_array_equal(store.labels("mass")[::2], MASS[:4])
    x_file = tmp_path / "x.h5"
    with h5py.File(x_file, "w") as file:
        file["x"] = random_images(6)
    write_rows(tmp_path / "rows.csv", "wsi,Labels,age", [(f"s{k}", LISTS[k], 20 * k) for k in range(6)])
    call("hdf5", x_file, tmp_path / "p.h5", "--images", "x", "--table", tmp_path / "rows.csv", *lists, "--only", "age>=40")
    store = Store.open(tmp_path / "p.h5")
    assert store.column("slide").tolist() == ["s2", "s3", "s4", "s5"]
    np.testing.assert_array_equal(store.labels("pneumonia"), PNEUMONIA[2:])
    with pytest.raises(InputError, match="pass --table FILE.csv too"):
        call("hdf5", x_file, tmp_path / "q.h5", "--images", "x", "--only", "age>=40")
