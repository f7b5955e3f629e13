"""Patients in train, test and pretraining: equal ids, nearly equal ids, and data sets that number the same people."""

import hashlib

import numpy as np
import pytest

from encoders.runtime.errors import InputError
from encoders.store.patient_ids import hash_patients, hash_simplified
from encoders.store.store import Store
from encoders.store.write import save_store
from encoders.zoo import zoo
from encoders.zoo.publish import publish_encoder
from pretrain.loop.corpus import Corpus
from tests.store_edits import edit_store
from tests.transfer import toys
from transfer.bench import bench
from transfer.leakage import patients
from transfer.tasks import load, task
from transfer.tasks.check import check_task
from transfer.tasks.split import Split

NET = "random_resnet10t:size=32,channels=1,mean=0.5,std=0.25"


def names(*values):
    return np.array(values, dtype=object)


def make_manifest(ids, dataset):
    """As a run writes it, from an independent sha256 of `dataset:id`."""
    hashes = [list(hashlib.sha256(f"{dataset}:{p}".encode()).digest()) for p in ids]
    near = hash_simplified(ids, dataset)
    counts = {"datasets": np.array([dataset]), "dataset_patients": np.array([len(ids)])}
    return {"patient_hash": np.array(hashes, dtype=np.uint8), "patient_near_hash": near, **counts}


def columns(ids, dataset="toy", named=None, same=()):
    datasets = names(*([dataset] * len(ids) if isinstance(dataset, str) else dataset))
    return patients.PatientColumns(names(*ids), datasets, np.ones(len(ids), dtype=bool) if named is None else np.array(named), same)


@pytest.mark.parametrize(("train", "test"), [("7", "007"), ("7", "7.0"), ("P7", "p7"), ("p-07", "P7"), ("Müller", "Mu\u0308ller ")])
def test_nearly_equal_ids_in_train_and_test_are_suspected(train, test):
    made = Split(names("train", "train", "test", "val"), "h")
    (found,) = patients.find_similar_patients(made, names(train, "x", test, "y"), np.ones(4, dtype=bool))
    assert (found.kind, found.between, found.count, found.confirmed) == ("patients with nearly equal ids", "train and test", 1, False)
    assert str(found) == "1 suspected patients with nearly equal ids between train and test"  # names nobody
    assert found.with_examples() == f"{found}, e.g. {train!r} ~ {test!r}"
    apart = Split(names("train", "train", "train", "test"), "h")
    assert patients.find_similar_patients(apart, names(train, "x", test, "y"), np.ones(4, dtype=bool)) == [], "all are in one part"
    unnamed = np.array([True, True, False, True])
    assert patients.find_similar_patients(made, names(train, "x", test, "y"), unnamed) == [], "a key is not the id of a patient"


def test_equal_ids_are_not_also_suspected_and_each_suspected_one_counts_once():
    made = Split(names("train", "train", "train", "test", "test"), "h")
    (found,) = patients.find_similar_patients(made, names("1", "01", "001", "1", "2"), np.ones(5, dtype=bool))
    assert found.count == 1


def test_patients_of_the_pretraining_data_are_found_by_data_set_and_id():
    manifest = make_manifest(["q", "nobody"], "toy")
    found, compared = patients.find_pretraining_patients("enc", manifest, columns(["q", "r", "q"]))
    assert [(f.kind, f.count, f.examples, f.confirmed) for f in found] == [("patients", 1, ("q",), True)]
    assert (compared.total, compared.compared, compared.ours, compared.theirs) == (2, 2, ("toy",), ("toy",))
    assert str(compared) == "the pretraining of enc: 2 of 2 test patients could be compared (test: data set toy; pretraining: toy)"
    assert compared.is_complete
    for of, n in ((["elsewhere"] * 2, 0), (["toy", "elsewhere"], 1), (["elsewhere", "toy"], 0)):
        assert len(patients.find_pretraining_patients("enc", manifest, columns(["q", "r"], of))[0]) == n


@pytest.mark.parametrize(("theirs", "ours"), [("7", "007"), ("7.0", "7"), ("P7", "p7"), ("e\u0301", "É")])
def test_nearly_equal_ids_in_a_manifest_are_suspected_and_equal_ones_certain(theirs, ours):
    manifest = make_manifest([theirs, "x"], "toy")
    (found,) = patients.find_pretraining_patients("enc", manifest, columns([ours, "y"]))[0]
    assert (found.kind, found.count, found.examples, found.confirmed) == ("patients with nearly equal ids", 1, (repr(ours),), False)
    assert patients.find_pretraining_patients("enc", manifest, columns([ours, "y"], named=[False, True]))[0] == []
    assert [f.confirmed for f in patients.find_pretraining_patients("enc", manifest, columns(["x"]))[0]] == [True]


def test_another_data_set_name_is_stated_and_same_people_compares_them():
    manifest = make_manifest(["q", "nobody"], "train")
    found, compared = patients.find_pretraining_patients("enc", manifest, columns(["q", "r"], "valid"))
    assert found == []
    assert not compared.is_complete
    assert str(compared) == (
        "the pretraining of enc: none of the 2 test patients could be compared (test: data set valid; pretraining: train); "
        "if two names stand for the same people, add --same-people valid,train"
    )
    found, compared = patients.find_pretraining_patients("enc", manifest, columns(["q", "r"], "valid", same=[["train", "valid"]]))
    assert [f.examples for f in found] == [("q",)]
    assert compared.is_complete


def test_the_comparison_counts_only_patients_of_data_sets_that_the_manifest_has():
    manifest = make_manifest(["q"], "b")
    tested = columns(["1", "2", "3", "k"], ["a", "a", "b", "b"], named=[True, True, True, False])
    _, compared = patients.find_pretraining_patients("enc", manifest, tested)
    assert (compared.total, compared.compared, compared.unnamed) == (3, 1, 1)
    assert "1 of 3 test patients could be compared (test: data sets a, b; pretraining: b)" in str(compared)
    assert str(compared).endswith("; 1 test images name no patient")


def test_what_cannot_be_compared_at_all_is_said_plainly():
    _, compared = patients.find_pretraining_patients("enc", make_manifest(["q"], "a"), columns(["k"], "a", named=[False]))
    assert "no patient could be compared, because the test images name none" in str(compared)
    earlier = {"patient_hash": hash_patients(["q"], "a")}
    found, compared = patients.find_pretraining_patients("enc", earlier, columns(["q"], "a"))
    assert [f.kind for f in found] == ["patients"]
    assert not compared.is_complete
    assert "its manifest names no data sets" in str(compared)
    nameless = {**make_manifest([], "a"), "patient_hash": hash_patients(["0001"], "a")}
    _, compared = patients.find_pretraining_patients("enc", nameless, columns(["q"], "a"))
    assert "none of the 1 test patients could be compared (test: data set a; pretraining: none with known patients)" in str(compared)


@pytest.fixture
def pretrained(tmp_path):
    """An encoder pretrained on the patients p0 to p9 of data set `folder_a`, and a task of other images of p5 to p34 in `folder_b`."""
    a, b = toys.store(tmp_path / "a.h5", patients=10, dataset="folder_a"), tmp_path / "b.h5"
    ids = [f"p{i}" for i in np.repeat(np.arange(5, 35), 2)]
    sick = (np.arange(60) // 2 % 2).astype(float)
    save_store(b, toys.pictures(sick, np.zeros(60), seed=5), patient=ids, labels={"sick": sick}, dataset="folder_b")
    encoder, store = zoo.load_encoder(NET), Store.open(a)
    card = encoder.card.replace(method="moco", source=None, modality="cxr")
    publish_encoder("mine", encoder.model, card, Corpus(store, np.arange(len(store))).manifest())
    task.save_task(task.Task(name="t", store=[str(b)], labels=["sick"], kind="binary", classes=["sick"], modality="cxr"))
    return a, b


def plan(**request):
    said = []
    return bench.plan_bench(bench.BenchRequest(["mine"], ["t"], baselines=[], near_duplicates=False, **request), said.append), said


def test_the_bench_states_that_no_patient_could_be_compared_and_same_people_finds_the_leak(pretrained):
    planned, said = plan()
    (line,) = [text for text in said if "could be compared" in text]
    assert "none of the" in line
    assert "--same-people folder_b,folder_a" in line
    assert [w for w in planned.leaks_and_warnings["t", "mine"][1] if "could be compared" in w] == [line.removeprefix("t: ")]
    with pytest.raises(InputError, match=r"patients between the pretraining of mine and test, e\.g\. p"):
        plan(same_people=[["folder_a", "folder_b"]])
    with pytest.raises(InputError, match=r"no data set called 'folder_c'; did you mean"):
        plan(same_people=[["folder_a", "folder_c"]])


def test_a_manifest_of_an_equal_data_set_name_compares_every_patient(pretrained, tmp_path):
    store = Store.open(pretrained[1])
    loaded = load.load_task(task.read_task("t"))
    encoder = zoo.load_encoder(NET)
    card = encoder.card.replace(method="moco", source=None, modality="cxr")
    publish_encoder("clean", encoder.model, card, Corpus(store, loaded.split.rows("train")).manifest())
    said = []
    bench.plan_bench(bench.BenchRequest(["clean"], ["t"], baselines=[], near_duplicates=False), said.append)
    n = len(set(loaded.patient[loaded.split.rows("test")]))
    assert (
        f"t: the pretraining of clean: {n} of {n} test patients could be compared (test: data set folder_b; pretraining: folder_b)" in said
    )


def test_pseudonyms_cannot_be_joined_by_name(pretrained):
    with edit_store(pretrained[1]) as file:
        file.attrs["patients"] = "pseudonyms"
    with pytest.raises(InputError, match=r"cannot join 'folder_b': its patients are pseudonyms.*ingest both with one --dataset"):
        plan(same_people=[["folder_a", "folder_b"]])


def two_hospitals(tmp_path, **fields):
    """A task of two stores whose patients are numbered p0, p1, ... in both."""
    stores = [toys.store(tmp_path / f"{name}.h5", patients=15, seed=seed, dataset=name) for seed, name in enumerate(("north", "south"))]
    whole = {"labels": ["sick"], "kind": "binary", "classes": ["sick"], "modality": "cxr", **fields}
    return task.Task(name="two", store=[str(s) for s in stores], **whole)


def test_two_stores_of_one_task_keep_their_patients_apart_unless_told_otherwise(tmp_path):
    apart = load.load_task(two_hospitals(tmp_path))
    assert len(set(apart.patient)) == 30
    assert sum(n["patients"] for n in apart.counts().values()) == 30
    joined = load.load_task(two_hospitals(tmp_path, same_people=[["south", "north"]]))
    assert len(set(joined.patient)) == 15
    for patient in set(joined.patient):
        assert len(set(joined.split.part[joined.patient == patient])) == 1, "one person stays in one part"
    assert any("15 patient ids are in both data sets north and south" in m and "different people" in m for m in apart.messages)
    assert any("15 patient ids are in both data sets north and south" in m and "same people" in m for m in joined.messages)


def test_the_bench_does_not_join_data_sets_that_the_split_of_a_task_keeps_apart(pretrained, tmp_path):
    (tmp_path / "two").mkdir()
    task.save_task(two_hospitals(tmp_path / "two"))
    with pytest.raises(InputError, match="task 'two' keeps apart.*--replace"):
        bench.plan_bench(bench.BenchRequest([NET], ["two"], baselines=[], same_people=[["north", "south"]]), lambda text: None)


def test_patients_of_the_two_stores_of_a_task_are_found_in_a_manifest(pretrained, tmp_path):
    (tmp_path / "two").mkdir()
    made = two_hospitals(tmp_path / "two")
    task.save_task(made)
    south = Store.open(made.store[1])
    encoder = zoo.load_encoder(NET)
    card = encoder.card.replace(method="moco", source=None, modality="cxr")
    images = Corpus(south, np.arange(len(south))).manifest()
    publish_encoder("southern", encoder.model, card, {k: v for k, v in images.items() if k not in ("sha256", "phash")})
    loaded = load.load_task(made)
    n = len({p for p in loaded.patient[loaded.split.rows("test")] if str(p).startswith("south:")})
    with pytest.raises(InputError, match=rf"{n} patients between the pretraining of southern and test, e\.g\. p"):
        bench.plan_bench(bench.BenchRequest(["southern"], ["two"], baselines=[], near_duplicates=False), lambda text: None)


@pytest.mark.parametrize("by_split", [False, True])
def test_the_bench_and_the_check_of_a_task_suspect_nearly_equal_ids_in_two_parts(tmp_path, by_split):
    ids = [f"{i:03d}" if i < 20 else str(i - 20) for i in np.repeat(np.arange(40), 2)]  # test: 000 to 019 without leading zeros
    sick = (np.arange(80) // 2 % 2).astype(float)
    parts = np.repeat(["train", "val", "test"], [30, 10, 40])
    images = toys.pictures(sick, np.zeros(80), seed=6)
    path = save_store(tmp_path / "s.h5", images, patient=ids, labels={"sick": sick}, meta={"split": parts.tolist()}, dataset="d")
    rule = task.SplitRule(column="split", patients_by_split=by_split)
    made = task.Task(name="n", store=[str(path)], labels=["sick"], kind="binary", classes=["sick"], modality="cxr", split=rule)
    task.save_task(made)
    planned = bench.plan_bench(bench.BenchRequest([NET], ["n"], baselines=[], near_duplicates=False), lambda text: None)
    ((_, (confirmed, suspected)),) = planned.leaks_and_warnings.items()
    assert confirmed == []
    assert [w for w in suspected if "nearly equal" in w] == (
        []
        if by_split
        else [
            "15 suspected patients with nearly equal ids between train and test",
            "5 suspected patients with nearly equal ids between val and test",
        ]
    )
    found = {r.question: (r.found, r.verdict) for r in check_task(made)}
    if by_split:
        assert not any("nearly equal" in question for question in found)
    else:
        text, verdict = found["patients with nearly equal ids in two parts"]
        assert text.startswith("20 groups, e.g. ")
        assert verdict == "warning"
