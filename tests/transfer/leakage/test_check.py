"""Leakage: patients and identical images stop the benchmark, near-duplicates are suspected; pretraining images count too."""

import csv
import io
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from encoders.ingest.decode import read_image
from encoders.runtime import paths
from encoders.runtime.errors import InputError
from encoders.similarity import pixel_check
from encoders.similarity.hash_search import find_near_pairs
from encoders.similarity.perceptual_hash import phash256, pixel_sha256
from encoders.store.patient_ids import hash_patients
from encoders.store.store import Store
from encoders.store.write import save_store
from encoders.zoo import zoo
from encoders.zoo.card import Card, Preprocess
from encoders.zoo.publish import publish_encoder
from tests.transfer import toys
from transfer.bench import bench, leaks, preprocess_check
from transfer.leakage import check, image_copies
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


def smooth(seed, size=64):
    """An image with structure at all scales, as radiographs have: noise blurred in Fourier space."""
    draw = np.random.default_rng(seed).normal(size=(size, size))
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    image = np.fft.ifft2(np.fft.fft2(draw) / (f + 0.02)).real
    return (255 * (image - image.min()) / np.ptp(image)).astype(np.uint8)[..., None]


def test_a_darkened_copy_is_suspected_and_an_identical_one_is_not_counted_twice():
    images = [smooth(0), smooth(1), smooth(2), (smooth(0) * 0.9).astype(np.uint8), smooth(2)]
    phash = np.stack([phash256(i) for i in images])
    made = parts("train", "train", "train", "test", "test")
    sha, key = hexes(0, 1, 2, 3, 2), names("a", "b", "c", "d", "e")
    (found,) = image_copies.find_near_duplicates(made, key, phash, sha)
    assert (found.kind, found.count, found.confirmed) == ("near-duplicates", 1, False)
    assert found.examples[0].startswith("a ~ d")
    manifest = {"sha256": check.digests_to_bytes(sha[:3]), "phash": phash[:3]}
    (near,) = image_copies.find_manifest_near_duplicates("enc", manifest, np.array([3, 4]), key, phash, sha)
    assert near.count == 1
    assert near.examples[0].startswith("d ")


def recompressed(image, quality=80):
    blob = io.BytesIO()
    Image.fromarray(image[..., 0]).save(blob, "JPEG", quality=quality)
    return np.asarray(Image.open(blob))[..., None]


@pytest.fixture
def copied(tmp_path):
    """Forty different images of forty patients; 3 is a recompressed copy of 30, and 4 is identical to 31."""
    images = [smooth(i) for i in range(40)]
    images[3], images[4] = recompressed(images[30]), images[31]
    labels = {"sick": np.arange(40) % 2 * 1.0}
    split = np.where(np.arange(40) < 20, "train", np.where(np.arange(40) < 28, "val", "test"))
    return save_store(tmp_path / "s.h5", np.stack(images), patient=[f"p{i}" for i in range(40)], labels=labels, meta={"split": split})


def the_task(where, **rule):
    return task.Task(name="t", store=[str(where)], labels=["sick"], kind="binary", classes=["sick"], split=task.SplitRule(**rule))


def test_a_copy_that_its_pixels_confirm_refuses_and_is_drawn(copied, tmp_path):
    task.save_task(the_task(copied, column="split"))
    with pytest.raises(InputError, match=r"(?s)identical images between train and test.*confirmed on their pixels, between train and test"):
        bench.plan_bench(bench.BenchRequest([NET], baselines=[]), lambda text: None)
    assert (paths.records_dir() / "t" / "leaks.png").is_file()
    said = []
    whole = bench.plan_bench(bench.BenchRequest([NET], baselines=[], allow_leakage=True), said.append)
    stamp = whole.leaks_and_warnings["t", NET][0]
    assert [line.partition(" between")[0] for line in stamp] == ["1 identical images", "1 near-duplicates, confirmed on their pixels,"]
    request = bench.BenchRequest([NET], baselines=[], allow_leakage=True, near_duplicates=False)
    assert bench.plan_bench(request, said.append).leaks_and_warnings["t", NET][0] == stamp[:1]


def test_an_own_split_keeps_copies_together(copied):
    for seed in range(6):
        loaded = load.load_task(the_task(copied, seed=seed))
        assert loaded.split.part[3] == loaded.split.part[30]
        assert image_copies.find_near_duplicates(loaded.split, loaded.key, loaded.store.column("phash"), loaded.sha256) == []
    assert "2 patients grouped with others" in loaded.messages[-1]


def test_what_the_hash_suspects_and_the_pixels_deny_only_warns(copied):
    loaded = load.load_task(the_task(copied, column="split"))
    phash = loaded.store.column("phash").copy()
    phash[5] = phash[33]  # two images with the same hash
    found = image_copies.find_near_duplicates(
        loaded.split, loaded.key, phash, loaded.sha256, lambda i, j: pixel_check.is_same_image(loaded.store, i, j)
    )
    assert [(f.count, f.confirmed) for f in found] == [(1, True), (1, False)]
    assert found[1].pairs == ((5, 33),)


def pretrained_on(copied, rows, change=lambda image: image):
    """An encoder in the zoo whose manifest lists these images of the store."""
    store = Store.open(copied)
    images = [change(store.image(i)) for i in rows]
    manifest = {
        "sha256": check.digests_to_bytes([pixel_sha256(i) for i in images]),
        "phash": np.stack([phash256(i) for i in images]),
        "patient_hash": hash_patients(["nobody"], "elsewhere"),
    }
    encoder = zoo.load_encoder(NET)
    publish_encoder("mine", encoder.model, encoder.card.replace(method="moco", source=None, modality="cxr"), manifest)
    return "mine"


def test_an_encoder_pretrained_on_test_images_is_refused_and_on_their_copies_suspected(copied):
    task.save_task(the_task(copied))
    loaded = load.load_task(the_task(copied))
    test, train = loaded.split.rows("test"), loaded.split.rows("train")
    entry = lambda name: SimpleNamespace(name=name)  # noqa: E731
    assert leaks.gather_pretraining_leaks(loaded, entry(pretrained_on(copied, train)), near_duplicates=True) == []
    shutil.rmtree(paths.zoo_dir())
    (found,) = leaks.gather_pretraining_leaks(loaded, entry(pretrained_on(copied, test[:3])), near_duplicates=True)
    assert (found.kind, found.count, found.confirmed) == ("identical images", 3, True)
    shutil.rmtree(paths.zoo_dir())
    name = pretrained_on(copied, test[:3], recompressed)
    (found,) = leaks.gather_pretraining_leaks(loaded, entry(name), near_duplicates=True)
    assert (found.kind, found.count, found.confirmed) == ("near-duplicates", 3, False)  # their pixels are not available
    whole = bench.plan_bench(bench.BenchRequest([name], baselines=[]), lambda text: None)
    assert "3 suspected near-duplicates between the pretraining of mine and test" in whole.leaks_and_warnings["t", "mine"][1][0]


def test_the_pixels_of_pretraining_images_that_the_store_holds_confirm(copied):
    """Trained on row 3, tested on its copy in row 30: both are in the task's store."""
    loaded = load.load_task(the_task(copied, column="split"))
    store = loaded.store
    manifest = {"sha256": check.digests_to_bytes(loaded.sha256[[3]]), "phash": store.column("phash")[[3]]}
    args = "mine", manifest, loaded.split.rows("test"), loaded.key, store.column("phash"), loaded.sha256
    (found,) = image_copies.find_manifest_near_duplicates(*args, lambda i, j: pixel_check.is_same_image(store, i, j))
    assert (found.confirmed, found.pairs) == (True, ((3, 30),))


@pytest.mark.real
@pytest.mark.slow
def test_kermanys_official_split_is_refused_and_lc25000s_turned_copies_are_not_seen(data_dir, tmp_path):
    """What the check detects, and what it cannot: rotated and flipped copies are only recognised by the name of their source tile."""
    at = data_dir / "cxr_kermany224"
    some = csv_rows(at / "labels.csv")[::4]
    images = np.stack([read_image(at / r["file"])[..., :1] for r in some])
    where = save_store(
        tmp_path / "k.h5",
        images,
        patient=[r["patient_id"] for r in some],
        labels={"sick": [float(r["label"] == "pneumonia") for r in some]},
        meta={"split": [r["split"] for r in some]},
    )
    loaded = load.load_task(the_task(where, column="split", patients_by_split=True))
    found = leaks.gather_split_leaks(loaded, near_duplicates=True)
    assert {f.kind for f in found} <= {"identical images"}
    at = data_dir / "path_lc25000_lung224"
    tiles = csv_rows(at / "labels.csv")[:1200]
    phash = np.stack([phash256(read_image(at / r["file"])) for r in tiles])
    source = np.array([r["source_image_id"] for r in tiles])
    pairs, _ = find_near_pairs(phash)
    copies = sum(n * (n - 1) // 2 for n in np.unique(source, return_counts=True)[1])
    assert len(pairs) < 0.02 * copies


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
    from PIL import Image

    from transfer.leakage.pictures import PAIR_SIDE, draw_leak_pairs

    store = Store.open(toys.store(tmp_path / "toy.h5", patients=4))
    assert draw_leak_pairs(store, [check.Leak("patients", "a and b", 1, ())], tmp_path / "none.png") is None
    found = check.Leak("identical images", "a and b", 2, (), pairs=((0, 0), (1, 5)))
    drawn = np.asarray(Image.open(draw_leak_pairs(store, [found], tmp_path / "leaks.png")))
    left, right = drawn[:PAIR_SIDE, :PAIR_SIDE], drawn[:PAIR_SIDE, -PAIR_SIDE:]
    np.testing.assert_array_equal(left, right)
    assert (drawn[-PAIR_SIDE - 6 : -6, :PAIR_SIDE] != drawn[-PAIR_SIDE - 6 : -6, -PAIR_SIDE:]).any()
