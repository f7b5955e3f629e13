"""Leaks: patients and identical images refuse, near-duplicates are suspected, and an encoder's own training images count."""

import numpy as np
import pytest

from encoders.card import Card, Preprocess
from encoders.duplicates import phash256
from encoders.runtime.errors import InputError
from encoders.store import Store
from encoders.store_write import save
from tests.transfer import toys
from transfer import data, leak, match, task
from transfer.split import Split


def parts(*named):
    return Split(np.array(named, dtype=object), "h")


def names(*values):
    return np.array(values, dtype=object)


def hexes(*values):
    return names(*(f"{v:064x}" for v in values))


def test_a_clean_split_has_no_leak():
    made = parts("train", "val", "test", "")
    assert leak.between_parts(made, names("a", "b", "c", "d"), names("p", "q", "r", "p"), hexes(1, 2, 3, 3)) == []


def test_a_patient_in_two_parts_is_found_unless_ids_count_by_part():
    made = parts("train", "train", "test")
    arguments = made, names("a", "b", "c"), names("p", "q", "p"), hexes(1, 2, 3)
    (found,) = leak.between_parts(*arguments)
    assert (found.what, found.between, found.count, found.examples) == ("patients", "train and test", 1, ("p",))
    assert leak.between_parts(*arguments, by_split=True) == []


@pytest.mark.parametrize(
    ("named", "between"), [(("train", "test"), "train and test"), (("val", "test"), "val and test"), (("train", "val"), "train and val")]
)
def test_identical_images_in_two_parts_are_found_whoever_the_patient_is(named, between):
    (found,) = leak.between_parts(parts(*named), names("a", "b"), names("p", "q"), hexes(7, 7))
    assert (found.what, found.between, found.examples, found.pairs) == ("identical images", between, ("a = b",), ((0, 1),))


def test_an_encoders_own_training_images_and_patients_are_found_in_the_test_part():
    sha, patient = hexes(1, 2, 3), names("p", "q", "r")
    manifest = {"sha256": leak.sha_bytes(hexes(9, 3)), "patient_hash": leak.patient_bytes(["q", "nobody"], "toy")}
    found = leak.with_manifest("enc", manifest, np.array([1, 2]), names("a", "b", "c"), patient, sha, "toy")
    assert [(f.what, f.count, f.examples) for f in found] == [("identical images", 1, ("c",)), ("patients", 1, ("q",))]
    assert leak.with_manifest("enc", manifest, np.array([0]), names("a", "b", "c"), patient, sha, "toy") == []
    assert len(leak.with_manifest("enc", manifest, np.array([1, 2]), names("a", "b", "c"), patient, sha, "elsewhere")) == 1


def test_an_encoder_without_a_manifest_gives_nothing_to_find():
    assert leak.with_manifest("enc", {}, np.array([0]), names("a"), names("p"), hexes(1), "toy") == []


def test_a_leak_refuses_unless_it_is_allowed_and_a_suspicion_only_warns():
    sure = leak.Leak("patients", "train and test", 2, ("p", "q"))
    maybe = leak.Leak("near-duplicates", "train and test", 1, ("a ~ b",), sure=False)
    with pytest.raises(InputError, match=r"(?s)2 patients between train and test, e\.g\. p; q.*--allow-leakage") as told:
        leak.judged("t", [sure, maybe], allow=False)
    assert "suspected" not in str(told.value)
    assert leak.judged("t", [sure, maybe], allow=True) == ([str(sure)], [str(maybe)])
    assert leak.judged("t", [maybe], allow=False) == ([], [str(maybe)])


def smooth(seed, size=64):
    """A picture with structure at all scales, as radiographs have: noise blurred in Fourier space."""
    draw = np.random.default_rng(seed).normal(size=(size, size))
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    image = np.fft.ifft2(np.fft.fft2(draw) / (f + 0.02)).real
    return (255 * (image - image.min()) / np.ptp(image)).astype(np.uint8)[..., None]


def test_a_darkened_copy_is_suspected_and_an_identical_one_is_not_counted_twice():
    images = [smooth(0), smooth(1), smooth(2), (smooth(0) * 0.9).astype(np.uint8), smooth(2)]
    phash = np.stack([phash256(i) for i in images])
    made = parts("train", "train", "train", "test", "test")
    sha, key = hexes(0, 1, 2, 3, 2), names("a", "b", "c", "d", "e")
    (found,) = leak.near_between_parts(made, key, phash, sha)
    assert (found.what, found.count, found.sure) == ("near-duplicates", 1, False)
    assert found.examples[0].startswith("a ~ d")
    manifest = {"sha256": leak.sha_bytes(sha[:3]), "phash": phash[:3]}
    (near,) = leak.near_manifest("enc", manifest, np.array([3, 4]), key, phash, sha)
    assert near.count == 1
    assert near.examples[0].startswith("d ")


def test_identical_images_of_two_patients_cannot_leak_through_an_own_split(tmp_path):
    images = toys.pictures(np.arange(60) % 2, np.arange(60.0))
    images[40] = images[3]
    where = save(tmp_path / "s.h5", images, patient=[f"p{i}" for i in range(60)], labels={"sick": np.arange(60) % 2 * 1.0})
    for seed in range(4):
        rule = task.Rule(seed=seed)
        loaded = data.load(task.Task(name="t", store=[str(where)], labels=["sick"], kind="binary", classes=["sick"], split=rule))
        assert loaded.split.part[40] == loaded.split.part[3]
        assert leak.between_parts(loaded.split, loaded.key, loaded.patient, loaded.sha256) == []
    assert "1 patients joined" in loaded.said[-1]


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
    said = match.warnings(CARD, modality, attrs)
    assert len(said) == len(wanted)
    assert all(word in line for word, line in zip(wanted, said, strict=True))


def test_magnifications_within_a_tenth_are_alike():
    card = CARD.changed(corpus={"geometry": {"mpp": 0.25}})
    assert match.warnings(card, "cxr", {"geometry": {"mpp": 0.2529}}) == []
    assert match.warnings(card, "cxr", {"geometry": {"mpp": 0.5}}) != []


def test_the_toy_store_is_what_these_tests_believe(tmp_path):
    store = Store.open(toys.store(tmp_path / "toy.h5", patients=4))
    assert store.dataset == "toy"
    assert len(set(store.column("sha256"))) == len(store)


def test_the_pairs_of_a_leak_are_drawn_side_by_side(tmp_path):
    from PIL import Image

    from transfer.pairs import SIDE, picture

    store = Store.open(toys.store(tmp_path / "toy.h5", patients=4))
    assert picture(store, [leak.Leak("patients", "a and b", 1, ())], tmp_path / "none.png") is None
    found = leak.Leak("identical images", "a and b", 2, (), pairs=((0, 0), (1, 5)))
    drawn = np.asarray(Image.open(picture(store, [found], tmp_path / "leaks.png")))
    left, right = drawn[:SIDE, :SIDE], drawn[:SIDE, -SIDE:]
    np.testing.assert_array_equal(left, right)
    assert (drawn[-SIDE - 6 : -6, :SIDE] != drawn[-SIDE - 6 : -6, -SIDE:]).any()
