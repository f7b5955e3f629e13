"""Identity of patients: normalised ids, nearly equal ids, unknown patients, and people of several data sets."""

import hashlib

import h5py
import numpy as np
import pytest

from encoders.store.patient_ids import (
    hash_patients,
    hash_simplified,
    list_same_names,
    name_patients,
    normalise_id,
    separate_people,
    simplify_id,
)
from encoders.store.store import Store
from encoders.store.write import save_store, write_index_column
from tests.store_edits import edit_store

UNKNOWN_PATIENTS = ["nan", "NA", "N/A", "None", "null", "<NA>", "ANONYMOUS", "", "empty", None, float("nan"), "Anonymized", "unknown"]


def make_store(path, patients, dataset="d", **columns):
    images = np.random.default_rng(len(patients)).integers(0, 255, (len(patients), 8, 8, 1), dtype=np.uint8)
    save_store(path, images, patient=patients, dataset=dataset, **columns)
    return path


@pytest.mark.parametrize(
    "alike",
    [
        ("7", "007", "7.0", "7.", "07.00", " 7 ", "７"),
        ("P7", "p7", "P-7", "P_007", "p 7"),
        ("Müller", "mu\u0308ller", "MULLER"),
        ("a-1_2", "A 01-2"),
        ("patient00012", "Patient12"),
    ],
)
def test_nearly_equal_ids_have_one_simplified_form(alike):
    assert len({simplify_id(text) for text in alike}) == 1


def test_different_ids_keep_different_simplified_forms():
    ids = ["7", "70", "7.5", "P7", "7P", "A-1-2", "A-12", "1.2.840.1", "1.2.840.10", "-", "patient1", "patient10", "1e400"]
    assert len({simplify_id(text) for text in ids}) == len(ids)


@pytest.mark.parametrize("ordinary", ["p1", "00012", "patient00001", "Ångström-3", "a b", "7.0", "x" * 40])
def test_ordinary_ids_are_kept_and_their_hashes_are_those_of_earlier_manifests(ordinary):
    assert normalise_id(ordinary) == ordinary
    assert hash_patients([ordinary], "nih").tobytes() == hashlib.sha256(f"nih:{ordinary}".encode()).digest()


def test_decomposed_accents_and_spaces_around_an_id_do_not_make_another_patient():
    assert normalise_id(" Jose\u0301 ") == "José"
    assert (hash_patients([" Jose\u0301"], "d ") == hash_patients(["José"], "d")).all()
    assert not (hash_patients(["7"], "d") == hash_patients(["007"], "d")).all(), "nearly equal ids are never merged"
    assert (hash_simplified(["7"], "d") == hash_simplified(["007.0"], "d")).all()
    assert not (hash_simplified(["7"], "d") == hash_patients(["7"], "d")).all()


@pytest.mark.parametrize("unknown", UNKNOWN_PATIENTS)
def test_images_of_an_unknown_patient_are_never_of_one_person(tmp_path, unknown):
    store = Store.open(make_store(tmp_path / "s.h5", ["p1", "p1", unknown, unknown]))
    assert store.column("patient").tolist() == ["p1", "p1", "000002", "000003"]
    assert store.names_patient().tolist() == [True, True, False, False]
    assert sum(store.unknown_texts("patient").values()) == 2


def test_a_new_store_names_an_unknown_patient_by_the_key_of_the_image_and_other_unknown_names_by_nothing(tmp_path):
    with h5py.File(make_store(tmp_path / "s.h5", [" p1", "e\u0301", "none"]), "r") as file:
        assert file["index/patient"].asstr()[:].tolist() == ["p1", "é", "000002"]
    with h5py.File(tmp_path / "t.h5", "w") as file:
        write_index_column(file, "slide", ["none", "S1", "N/A", None, "Empty"], list("abcde"))
        write_index_column(file, "key", ["none", "NA", "c", "d", "e"], list("abcde"))
        assert file["slide"].asstr()[:].tolist() == ["", "S1", "", "", ""]
        assert file["key"].asstr()[:].tolist() == ["none", "NA", "c", "d", "e"], "a key is never unknown"


def test_a_store_of_an_earlier_version_that_kept_the_texts_is_read_in_the_same_way(tmp_path):
    path = make_store(tmp_path / "s.h5", ["p1", "p2", "p3", "p4"])
    with edit_store(path) as file:
        del file["index/patient"]
        values = np.array(["nan", "ANONYMOUS", "e\u0301 ", "\u00e9"], dtype=object)
        file["index"].create_dataset("patient", data=values, dtype=h5py.string_dtype())
    assert Store.open(path).column("patient").tolist() == ["000000", "000001", "é", "é"]


def test_an_id_that_equals_the_key_in_any_spelling_stays_unknown():
    assert name_patients(["e\u0301.png", None], ["e\u0301.png", "b"]).tolist() == ["e\u0301.png", "b"]


def test_the_texts_that_meant_unknown_stay_with_the_store(tmp_path):
    labels = {"sick": ["none", "mass", "", "N/A"], "grade": ["none", "1", "2", "2"]}
    store = Store.open(make_store(tmp_path / "s.h5", ["a", "NA", "c", "d"], labels=labels, meta={"age": ["5", "empty", "6", "7"]}))
    assert store.classes("sick") == ["mass", "none"]
    assert store.unknown_texts("sick", ["labels"]) == {"": 1, "N/A": 1}
    assert store.classes("grade") is None
    assert store.unknown_texts("grade", ["labels"]) == {"none": 1}
    np.testing.assert_array_equal(store.column("age"), [5, np.nan, 6, 7])
    assert store.unknown_texts("age") == {"empty": 1}
    assert store.unknown_texts("patient") == {"NA": 1}
    assert store.unknown_texts("key") == {}


def test_two_stores_keep_their_patients_apart_unless_told_otherwise(tmp_path):
    a, b = make_store(tmp_path / "a.h5", ["1", "2"], "A"), make_store(tmp_path / "b.h5", ["1", "2", "3"], "B")
    c = make_store(tmp_path / "c.h5", ["2"], "A")
    assert Store.open(a).people().tolist() == ["1", "2"]
    assert Store.open([a, c]).people().tolist() == ["1", "2", "2"], "one data set in two files"
    assert Store.open([a, b]).people().tolist() == ["A:1", "A:2", "B:1", "B:2", "B:3"]
    assert Store.open([a, b]).people([["B", "A"]]).tolist() == ["1", "2", "1", "2", "3"]
    assert Store.open([a, b]).people([["B", "X"], ["X", " A"]]).tolist() == ["1", "2", "1", "2", "3"]


def test_people_of_three_data_sets_of_which_two_number_alike():
    ids, of = np.array(["1"] * 3), np.array(["A", "B", "C"])
    assert separate_people(ids, of, [["B", "C"]]).tolist() == ["A:1", "B:1", "B:1"]
    assert separate_people(ids, of, [["B", "C"]], plain="C").tolist() == ["A:1", "1", "1"]
    assert separate_people(ids, of, [["A", "B", "C"]]).tolist() == ["1"] * 3


def test_groups_of_names_that_share_a_name_are_one_group():
    assert list_same_names("a", []) == ["a"]
    assert list_same_names("a", [["a", "b"], ["c", "b"], ["x", "y"]]) == ["a", "b", "c"]
