"""Images whose keys and identifiers are hashes take labels, official lists and key lists after the ingest, by the names of their files."""

import numpy as np
import pytest
from typer.testing import CliRunner

from encoders.ingest.dicom.hidden_names import HiddenNames, list_path_ends
from encoders.ingest.dicom.source import DicomSource
from encoders.ingest.shards import ingest
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from pretrain.loop.corpus import read_wanted_keys
from tests.encoders.ingest.dicom_files import build_dicom, ramp, save_dicom
from tests.store_edits import edit_store
from transfer.cli.main import app
from transfer.tasks.check import check_official_lists
from transfer.tasks.csv_labels import read_csv_labels
from transfer.tasks.official_parts import match_official_lists
from transfer.tasks.task import SplitRule, read_task

NAMES = ["MEIER/a/1.dcm", "MEIER/b/1.dcm", "MEIER/b/2.dcm", "open/3.dcm"]  # the patient of the first three is called so
Y = [1.0, 0.0, 1.0, 0.0]


def write_folder(folder, names=NAMES):
    for k, name in enumerate(names):
        tags = {"PatientID": f"P-{k:04d}", "StudyInstanceUID": f"1.9.{k}", "SeriesInstanceUID": f"1.8.{k}", "AccessionNumber": f"ACC{k}"}
        save_dicom(build_dicom(np.roll(ramp(), 50 * k), f"1.2.{k}", PatientName="Meier^Anna", **tags), folder / name)
    return folder


@pytest.fixture
def store(tmp_path):
    ingest(DicomSource(write_folder(tmp_path / "in"), size=0, dataset="ward"), tmp_path / "s.h5")
    return Store.open(tmp_path / "s.h5")


def codes(tmp_path, store, column, values):
    rows = "".join(f"{value},{y:g}\n" for value, y in zip(values, Y, strict=True))
    (tmp_path / "l.csv").write_text(f"{column},y\n{rows}")
    (found,), messages = read_csv_labels(tmp_path / "l.csv", store, ["y"], column)
    return found.codes, messages


def test_the_keys_are_hidden_and_the_store_holds_no_name(store, tmp_path):
    hidden = [key.startswith("hidden-") for key in store.column("key")]
    assert hidden == [True, True, True, False]
    raw = (tmp_path / "s.h5").read_bytes()
    assert [word for word in (b"MEIER", b"ACC0", b"1.2.0", b"1.8.0", b"P-0000") if word in raw] == []


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("file", NAMES),
        ("file", [name.removesuffix(".dcm") for name in NAMES]),
        ("path", [f"/data/set/{name}" for name in NAMES]),
        ("path", [f"D:\\set\\{name}".replace("/", "\\") for name in NAMES]),
        ("image", [name.replace(".dcm", ".png") for name in NAMES]),
        ("SOPInstanceUID", ["1.2.0", "1.2.1", "1.2.2", "1.2.3"]),
        ("uid", ["1.2.0.dcm", "1.2.1.dcm", "1.2.2.dcm", "1.2.3.dcm"]),
        ("series", ["1.8.0", "1.8.1", "1.8.2", "1.8.3"]),
        ("study", ["1.9.0", "1.9.1", "1.9.2", "1.9.3"]),
        ("AccessionNumber", ["ACC0", "ACC1", "ACC2", "ACC3"]),
        ("PatientID", ["P-0000", " P-0001", "P-0002", "P-0003"]),
    ],
)
def test_labels_are_joined_by_names_that_are_hashed(store, tmp_path, column, values):
    found, messages = codes(tmp_path, store, column, values)
    np.testing.assert_array_equal(found, Y)
    assert "4 of 4 rows matched an image" in messages[0]


def test_a_file_name_alone_finds_its_image_if_only_one_has_it(store, tmp_path):
    (tmp_path / "n.csv").write_text("file,y\n1.dcm,1\n2.dcm,1\n3,0\n")
    (column,), messages = read_csv_labels(tmp_path / "n.csv", store, ["y"])
    np.testing.assert_array_equal(column.codes, [np.nan, np.nan, 1, 0])  # two files are called 1.dcm
    assert any("write a path as it was below the folder of that ingest" in message for message in messages)


def test_two_paths_that_end_like_one_hidden_file_are_not_guessed(tmp_path):
    ingest(DicomSource(write_folder(tmp_path / "in", ["MEIER1.dcm", "MEIER2.dcm"]), size=0, dataset="ward"), tmp_path / "s.h5")
    store = Store.open(tmp_path / "s.h5")
    (tmp_path / "l.csv").write_text("file,y\na/MEIER1.dcm,1\nb/MEIER1.dcm,1\nb/MEIER2.dcm,0\n")
    (column,), messages = read_csv_labels(tmp_path / "l.csv", store, ["y"])
    np.testing.assert_array_equal(column.codes, [np.nan, 0])
    assert any("end like one file whose name is hidden" in message for message in messages)


def test_several_data_sets_are_hashed_with_their_own_names(tmp_path):
    for k, dataset in enumerate(("ward", "clinic")):
        ingest(DicomSource(write_folder(tmp_path / dataset, NAMES[k : k + 2]), size=0, dataset=dataset), tmp_path / f"{dataset}.h5")
    store = Store.open([tmp_path / "ward.h5", tmp_path / "clinic.h5"])
    (tmp_path / "l.csv").write_text(f"file,y\n{NAMES[0]},1\n{NAMES[2]},0\n")
    (column,), _ = read_csv_labels(tmp_path / "l.csv", store, ["y"])
    np.testing.assert_array_equal(column.codes, [1, np.nan, np.nan, 0])


def test_official_lists_and_key_lists_find_hidden_names(store, tmp_path):
    for part, names in {"train": [NAMES[0], "1.2.3"], "val": [NAMES[1]], "test": ["2.dcm"]}.items():
        (tmp_path / f"{part}.txt").write_text("\n".join(names) + "\n")
    rule = SplitRule(lists={part: str(tmp_path / f"{part}.txt") for part in ("train", "val", "test")})
    assert match_official_lists(store, rule).tolist() == ["train", "val", "test", "train"]
    keys = store.column("key")
    assert read_wanted_keys(str(tmp_path / "train.txt"), store).tolist() == sorted([keys[0], keys[3]])
    (tmp_path / "keys.txt").write_text(f"{keys[1]}\n{NAMES[2]}\n")
    assert read_wanted_keys(str(tmp_path / "keys.txt"), store).tolist() == sorted([keys[1], keys[2]])
    (tmp_path / "keys.txt").write_text(f"{keys[1]}\nMEIER/none.dcm\n")
    with pytest.raises(InputError, match="1 of its 2 keys, such as 'MEIER/none.dcm'.*write a path as it was"):
        read_wanted_keys(str(tmp_path / "keys.txt"), store)


def test_a_task_takes_labels_and_lists_for_hidden_keys(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOGRAFT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    names = [f"MEIER/{k}.dcm" for k in range(12)]
    ingest(DicomSource(write_folder(tmp_path / "in", names), size=0, dataset="ward"), tmp_path / "s.h5")
    (tmp_path / "l.csv").write_text("file,y\n" + "".join(f"{name},{k % 2}\n" for k, name in enumerate(names)))
    for part, rows in {"train": names[:6], "val": names[6:9], "test": names[9:]}.items():
        (tmp_path / f"{part}.txt").write_text("\n".join(rows) + "\n")
    words = ["tasks", "add", "t", "s.h5", "--labels", "l.csv", "--label", "y"]
    words += [word for part in ("train", "val", "test") for word in ("--split-list", f"{part}={part}.txt")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "12 of 12 rows matched an image" in " ".join(done.output.split())
    results = list(check_official_lists(read_task("t"), Store.open(tmp_path / "s.h5")))
    assert [result.verdict for result in results] == ["ok"] * 3


def test_what_cannot_be_computed_again_says_what_to_do(tmp_path):
    ingest(DicomSource(write_folder(tmp_path / "in"), size=0, dataset="ward", salt="s" * 32), tmp_path / "s.h5")
    store = Store.open(tmp_path / "s.h5")
    (tmp_path / "l.csv").write_text(f"file,y\n{NAMES[0]},1\n")
    with pytest.raises(InputError, match="hashed with a secret .--salt-file.: ingest again with --labels"):
        read_csv_labels(tmp_path / "l.csv", store, ["y"])
    assert HiddenNames(store).find(NAMES[0]) == []
    (tmp_path / "p.csv").write_text("PatientID,y\nP-0000,1\n")
    with pytest.raises(InputError, match="hashed with a secret"):
        read_csv_labels(tmp_path / "p.csv", store, ["y"])


def test_a_store_of_an_earlier_version_finds_whole_paths(store, tmp_path):
    with edit_store(tmp_path / "s.h5") as file:
        for name in ("file_hash", "uid_hash", "series_hash", "accession_hash"):
            del file["index"][name]
    old = Store.open(tmp_path / "s.h5")
    (tmp_path / "l.csv").write_text(f"file,y\n/x/{NAMES[0]},1\n2.dcm,0\n")
    (column,), messages = read_csv_labels(tmp_path / "l.csv", old, ["y"])
    np.testing.assert_array_equal(column.codes, [1, np.nan, np.nan, np.nan])
    assert any(message.startswith("note: the keys of 3 images are hashes") for message in messages)


def test_ends_of_a_path_are_tried_from_the_longest():
    ends = list(list_path_ends("x/y.png"))
    assert ends[0] == "x/y.png"
    assert {"x/y.dcm", "x/y", "y.png", "y.dcm", "y"} <= {*ends}
    assert max(ends.index(end) for end in ends if "/" in end) < min(ends.index(end) for end in ends if "/" not in end)
