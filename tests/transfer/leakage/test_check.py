"""Leakage: patients and identical images stop the benchmark, near-duplicates are suspected; pretraining images count too."""

import csv

import numpy as np
import pytest
from PIL import Image

from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.store.write import save_store
from encoders.zoo.card import Card, Preprocess
from tests.transfer import toys
from transfer.bench import preprocess_check
from transfer.leakage import check
from transfer.tasks import load, task
from transfer.tasks.split import Split

NET = "random_resnet10t:size=32,channels=1,mean=0.5,std=0.25"


def csv_rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def parts(*named):
    return Split(np.array(named, dtype=object), "h")


def names(*values):
    return np.array(values, dtype=object)


def hexes(*values):
    return names(*(f"{v:064x}" for v in values))


def test_a_clean_split_has_no_leak():
    made = parts("train", "val", "test", "")
    assert check.find_part_leaks(made, names("a", "b", "c", "d"), names("p", "q", "r", "p"), hexes(1, 2, 3, 3)) == []


def test_a_patient_in_two_parts_is_found_unless_ids_count_by_part():
    made = parts("train", "train", "test")
    arguments = made, names("a", "b", "c"), names("p", "q", "p"), hexes(1, 2, 3)
    (found,) = check.find_part_leaks(*arguments)
    assert (found.kind, found.between, found.count, found.examples) == ("patients", "train and test", 1, ("p",))
    assert check.find_part_leaks(*arguments, by_split=True) == []


@pytest.mark.parametrize(
    ("named", "between"), [(("train", "test"), "train and test"), (("val", "test"), "val and test"), (("train", "val"), "train and val")]
)
def test_identical_images_in_two_parts_are_found_whoever_the_patient_is(named, between):
    (found,) = check.find_part_leaks(parts(*named), names("a", "b"), names("p", "q"), hexes(7, 7))
    assert (found.kind, found.between, found.examples, found.pairs) == ("identical images", between, ("a = b",), ((0, 1),))


def test_an_encoders_own_training_images_are_found_in_the_test_part():
    manifest, sha, key = {"sha256": check.digests_to_bytes(hexes(9, 3))}, hexes(1, 2, 3), names("a", "b", "c")
    (found,) = check.find_manifest_leaks("enc", manifest, np.array([1, 2]), key, sha)
    assert (found.kind, found.count, found.examples) == ("identical images", 1, ("c",))
    assert check.find_manifest_leaks("enc", manifest, np.array([0]), key, sha) == []


def test_an_encoder_without_a_manifest_gives_nothing_to_find():
    assert check.find_manifest_leaks("enc", {}, np.array([0]), names("a"), hexes(1)) == []


def test_a_leak_refuses_unless_it_is_allowed_and_a_suspicion_only_warns():
    sure = check.Leak("patients", "train and test", 2, ("p", "q"))
    maybe = check.Leak("near-duplicates", "train and test", 1, ("a ~ b",), confirmed=False)
    with pytest.raises(InputError, match=r"(?s)2 patients between train and test, e\.g\. p; q.*--allow-leakage") as told:
        check.check_leaks("t", [sure, maybe], allow=False)
    assert "suspected" not in str(told.value)
    assert check.check_leaks("t", [sure, maybe], allow=True) == ([str(sure)], [str(maybe)])
    assert check.check_leaks("t", [maybe], allow=False) == ([], [str(maybe)])


def test_identical_images_of_two_patients_cannot_leak_through_an_own_split(tmp_path):
    images = toys.pictures(np.arange(60) % 2, np.arange(60.0))
    images[40] = images[3]
    where = save_store(tmp_path / "s.h5", images, patient=[f"p{i}" for i in range(60)], labels={"sick": np.arange(60) % 2 * 1.0})
    for seed in range(4):
        rule = task.SplitRule(seed=seed)
        loaded = load.load_task(task.Task(name="t", store=[str(where)], labels=["sick"], kind="binary", classes=["sick"], split=rule))
        assert loaded.split.part[40] == loaded.split.part[3]
        assert check.find_part_leaks(loaded.split, loaded.key, loaded.patient, loaded.sha256) == []
    assert "1 patients grouped with others" in loaded.messages[-1]


CARD = Card(
    name="enc",
    arch="resnet18",
    dim=512,
    preprocess=Preprocess(),
    modality="cxr",
    corpus={"geometry": {"resize": "pad"}, "unit": {"meaning": "8 bit"}},
)


@pytest.mark.parametrize(
    ("attrs", "modality", "wanted"),
    [
        ({"geometry": {"resize": "pad"}, "unit": {"meaning": "8 bit"}}, "cxr", []),
        ({"geometry": {"resize": "squash"}, "unit": {"meaning": "8 bit"}}, "cxr", ["resize"]),
        ({"geometry": {"resize": "pad"}, "unit": {"meaning": "window"}}, "cxr", ["intensities"]),
        ({"geometry": {"resize": "pad"}, "unit": {"meaning": "8 bit"}}, "histology", ["histology"]),
    ],
)
def test_an_encoder_that_saw_other_images_is_warned_of(attrs, modality, wanted):
    said = preprocess_check.list_preprocess_mismatches(CARD, modality, attrs)
    assert len(said) == len(wanted)
    assert all(word in line for word, line in zip(wanted, said, strict=True))


def test_magnifications_within_a_tenth_are_alike():
    card = CARD.replace(corpus={"geometry": {"mpp": 0.25}})
    assert preprocess_check.list_preprocess_mismatches(card, "cxr", {"geometry": {"mpp": 0.2529}}) == []
    assert preprocess_check.list_preprocess_mismatches(card, "cxr", {"geometry": {"mpp": 0.5}}) != []
    stained = preprocess_check.list_preprocess_mismatches(card, "cxr", {"geometry": {"mpp": 0.25, "normalise": "macenko"}})
    assert stained == [f"{card.name} was pretrained with stain unchanged, the task's store has stain macenko"]


def test_the_toy_store_is_what_these_tests_believe(tmp_path):
    store = Store.open(toys.store(tmp_path / "toy.h5", patients=4))
    assert store.dataset == "toy"
    assert len(set(store.column("sha256"))) == len(store)


def test_the_pairs_of_a_leak_are_drawn_side_by_side(tmp_path):

    from transfer.leakage.pictures import PAIR_SIDE, draw_leak_pairs

    store = Store.open(toys.store(tmp_path / "toy.h5", patients=4))
    assert draw_leak_pairs(store, [check.Leak("patients", "a and b", 1, ())], tmp_path / "none.png") is None
    found = check.Leak("identical images", "a and b", 2, (), pairs=((0, 0), (1, 5)))
    drawn = np.asarray(Image.open(draw_leak_pairs(store, [found], tmp_path / "leaks.png")))
    left, right = drawn[:PAIR_SIDE, :PAIR_SIDE], drawn[:PAIR_SIDE, -PAIR_SIDE:]
    np.testing.assert_array_equal(left, right)
    assert (drawn[-PAIR_SIDE - 6 : -6, :PAIR_SIDE] != drawn[-PAIR_SIDE - 6 : -6, -PAIR_SIDE:]).any()
