"""Unknown labels, patients and parts of a split: counted, with their texts, whatever the source."""

import numpy as np
import pytest
from typer.testing import CliRunner

from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.store.write import save_store
from tests.transfer import toys
from transfer.cli.main import app
from transfer.tasks import group_columns, labels, load, people, split, task
from transfer.tasks.csv_labels import read_csv_labels
from transfer.tasks.task import SplitRule

FINDINGS = np.array([["none", "mass", "nodule"][i % 3] for i in range(80)], dtype=object)
FINDINGS[:12], FINDINGS[12:20] = "N/A", ""


def make_cohort(path, patient=None, **columns):
    images = toys.pictures(np.arange(80) % 2.0, np.zeros(80), seed=ord(path.stem[0]))
    patients = [f"p{i // 2}" for i in range(80)] if patient is None else patient
    return save_store(path, images, patient=patients, **columns)


def made(store, **fields):
    return task.Task(**{"name": "t", "store": [str(store)], "labels": ["finding"], "kind": "multiclass", "classes": [], **fields})


def write_csv(path, values):
    path.write_text("key,finding\n" + "".join(f"{i:06d},{v}\n" for i, v in enumerate(values)))
    return path


@pytest.mark.parametrize("source", ["csv", "store label", "meta"])
def test_a_class_named_none_stays_and_unknown_labels_are_counted_with_their_texts(tmp_path, source):
    columns = {} if source == "csv" else {"labels" if source == "store label" else "meta": {"finding": list(FINDINGS)}}
    store = make_cohort(tmp_path / "s.h5", **columns)
    fields = {"csv": str(write_csv(tmp_path / "l.csv", FINDINGS))} if source == "csv" else {}
    targets = load.read_targets(Store.open(store), made(store, classes=["x"], **fields))
    assert targets.classes == ["mass", "nodule", "none"]
    assert int(np.isfinite(targets.y).all(axis=1).sum()) == 60
    assert int(np.nansum(targets.y[:, 2])) == int((FINDINGS == "none").sum()) == 20
    assert "label column 'finding': 20 unknown: 'N/A' 12, '' 8 (of 80 images)" in targets.messages
    if source == "csv":
        assert targets.messages[0] == "l.csv: 80 of 80 rows matched an image on `key`"


@pytest.mark.parametrize("word", ["none", "None", "unknown", "empty", "<NA>"])
def test_a_word_among_numbers_is_unknown_in_a_csv_and_in_a_store(tmp_path, word):
    values = [word, "0", "1", "1"] * 20
    store = Store.open(make_cohort(tmp_path / "s.h5", labels={"finding": values}))
    (from_store,) = labels.read_store_labels(store, ["finding"])
    (from_csv,), _ = read_csv_labels(write_csv(tmp_path / "l.csv", values), store, ["finding"])
    np.testing.assert_array_equal(from_store.codes, from_csv.codes)
    assert from_store.classes is from_csv.classes is None
    assert from_store.unknown_texts == from_csv.unknown_texts == {word: 20}


def test_a_column_without_a_known_value_is_refused_with_its_texts():
    with pytest.raises(InputError, match=r"'c' has no known value \(3 unknown: 'none' 2, '' 1\)"):
        labels.build_targets([labels.encode_column("c", ["none", "none", ""])])


def test_only_the_columns_with_the_most_unknown_labels_are_shown_one_by_one():
    from transfer.tasks.dropped_labels import MAX_COLUMNS_SHOWN, describe_unknown_labels

    columns = [labels.encode_column(f"c{n}", [""] * n + ["1"] * (20 - n)) for n in range(10)]
    said = describe_unknown_labels(columns)
    assert len(said) == MAX_COLUMNS_SHOWN + 1
    assert said[0] == "label column 'c9': 9 unknown: '' 9 (of 20 images)"
    assert said[-1] == "4 more label columns have 1 to 4 unknown values each"


def test_images_of_classes_that_are_not_kept_are_counted(tmp_path):
    store = make_cohort(tmp_path / "s.h5", labels={"finding": list(FINDINGS)})
    targets = load.read_targets(Store.open(store), made(store, classes=["x"], kind="binary", keep=["mass", "nodule"]))
    assert "20 images are of classes that are not kept: none 20" in targets.messages


@pytest.mark.parametrize("text", ["", "NA", "none", "nan", "unknown", None])
def test_images_whose_part_is_unknown_are_excluded_and_counted(text):
    column = np.array(["train"] * 6 + ["test"] * 2 + [text] * 2, dtype=object)
    key = np.array([f"k{i}" for i in range(10)], dtype=object)
    made_split = split.make_split(SplitRule(column="s", val=0.5), key, key, None, np.arange(10)[:, None] % 2.0, column)
    assert list(made_split.part[8:]) == ["", ""]
    assert f"2 images without a part in 's' are excluded (2 unknown: {text or ''!r} 2)" in made_split.messages


def test_groups_of_test_images_do_not_lose_a_class_named_none():
    values = np.array(["none", "none", "", "N/A"])
    assert group_columns.name_groups("implant", values).tolist() == ["none", "none", "not stated", "not stated"]


def test_images_without_a_patient_are_counted_and_split_alone(tmp_path):
    patient = [f"p{i // 2}" for i in range(70)] + ["ANONYMOUS"] * 6 + ["nan"] * 4
    store = Store.open(make_cohort(tmp_path / "s.h5", patient=patient))
    assert people.describe_people(store, ()) == [
        "10 of 80 images name no patient; each counts as a patient of its own (10 unknown: 'ANONYMOUS' 6, 'nan' 4)"
    ]
    assert len(set(store.people().tolist())) == 35 + 10


def test_images_of_two_files_that_name_no_patient_are_never_of_one_person(tmp_path):
    stores = [make_cohort(tmp_path / f"{name}.h5", patient=["NA"] * 80, dataset="d") for name in "ab"]
    both = Store.open(stores)
    assert len(set(both.column("key").tolist())) == 80, "the keys are equal"
    assert len(set(both.people().tolist())) == 160


def test_an_ordinary_task_has_the_split_that_it_had_before(tmp_path):
    """Ids without spaces, accents and leading zeros, one data set: the hash is that of version 0.1.0 before ids were normalised."""
    store = toys.store(tmp_path / "toy.h5")
    loaded = load.load_task(made(store, labels=["sick"], kind="binary", classes=["sick"]))
    assert set(loaded.patient) == {f"p{i}" for i in range(30)}
    assert loaded.split.hash == "82d66c01c1adc52c"


def test_tasks_add_prints_what_is_unknown_and_joins_data_sets_on_request(tmp_path):
    patients = ["NA" if i < 4 else f"p{i // 2}" for i in range(80)]
    stores = [str(make_cohort(tmp_path / f"{n}.h5", patient=patients, labels={"finding": list(FINDINGS)}, dataset=n)) for n in ("n", "s")]
    text = CliRunner().invoke(app, ["tasks", "add", "t", *stores, "--label", "finding"], env={"COLUMNS": "300"}).output
    assert "label column 'finding': 40 unknown: 'N/A' 24, '' 16 (of 160 images)" in text
    assert "8 of 160 images name no patient; each counts as a patient of its own (8 unknown: 'NA' 8)" in text
    assert "38 patient ids are in both data sets n and s, e.g. p10, p11, p12; they count as different people (--same-people n,s" in text
    assert len(set(load.load_task(task.read_task("t")).patient)) == 2 * (38 + 4)
    again = ["tasks", "add", "t", *stores, "--label", "finding", "--same-people", "n,s", "--replace"]
    text = CliRunner().invoke(app, again, env={"COLUMNS": "300"}).output
    assert "they are the same people" in text
    assert task.read_task("t").same_people == [["n", "s"]]
    assert len(set(load.load_task(task.read_task("t")).patient)) == 38 + 2 * 4, "unknown patients are never joined"


@pytest.mark.parametrize("option", ["n", "n,", "n,n", ""])
def test_a_group_of_one_data_set_is_refused(option):
    with pytest.raises(InputError, match="is not NAME,NAME"):
        people.parse_same_people([option])


def test_a_data_set_that_no_store_has_is_refused(tmp_path):
    with pytest.raises(InputError, match="no data set called 'nhi'; did you mean nih"):
        people.check_same_people(Store.open(make_cohort(tmp_path / "s.h5", dataset="nih")), [["nih", "nhi"]])
