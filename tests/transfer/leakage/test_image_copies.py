"""Copies of test images in another part and in the pretraining data are found, and confirmed where pixels are available."""

import csv
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from encoders.ingest.decode import read_image
from encoders.runtime import paths
from encoders.runtime.errors import InputError
from encoders.similarity.perceptual_hash import hash_signs, pixel_sha256
from encoders.store.patient_ids import hash_patients
from encoders.store.store import Store
from encoders.store.write import save_store
from encoders.zoo import zoo
from encoders.zoo.publish import publish_encoder
from tests.encoders.similarity.pictures import COPIES, padded, recompressed, resized, textured
from tests.store_edits import edit_store
from transfer.bench import bench, leaks
from transfer.leakage import check, image_copies
from transfer.leakage.pictures import PAIR_SIDE
from transfer.leakage.pretraining_images import PretrainingImages
from transfer.tasks import load, task

NET = "random_resnet10t:size=32,channels=1,mean=0.5,std=0.25"
SIDE = 96  # pixels
ENTRY = SimpleNamespace(name="mine")


def cohort_of(path, images):
    """Images of as many patients: the first half are train, then val and test."""
    n = len(images)
    split = np.where(np.arange(n) < n // 2, "train", np.where(np.arange(n) < n * 7 // 10, "val", "test"))
    labels = {"sick": np.arange(n) % 2 * 1.0}
    return save_store(path, np.stack(images), patient=[f"p{i}" for i in range(n)], labels=labels, meta={"split": split})


def the_task(where, **rule):
    return task.Task(name="t", store=[str(where)], labels=["sick"], kind="binary", classes=["sick"], split=task.SplitRule(**rule))


@pytest.fixture
def images():
    return [textured(i, SIDE) for i in range(40)]


@pytest.fixture
def copied(tmp_path, images):
    """Forty different images of forty patients; 3 is a recompressed copy of 30, and 4 is identical to 31."""
    images[3], images[4] = recompressed(images[30], 80), images[31]
    return cohort_of(tmp_path / "s.h5", images)


def split_leaks(where, **rule):
    return leaks.gather_split_leaks(load.load_task(the_task(where, **rule)), near_duplicates=True)


def test_a_copy_that_its_pixels_confirm_refuses_and_is_drawn(copied):
    task.save_task(the_task(copied, column="split"))
    message = r"(?s)identical images between train and test.*confirmed on their pixels, between train and test.*Not detected are crops"
    with pytest.raises(InputError, match=message):
        bench.plan_bench(bench.BenchRequest([NET], baselines=[]), lambda text: None)
    assert read_image(paths.records_dir() / "t" / "leaks.png").shape[0] >= 2 * PAIR_SIDE, "the identical and the confirmed pair"
    said = []
    whole = bench.plan_bench(bench.BenchRequest([NET], baselines=[], allow_leakage=True), said.append)
    stamp = whole.leaks_and_warnings["t", NET][0]
    assert [line.partition(" between")[0] for line in stamp] == ["1 identical images", "1 near-duplicates, confirmed on their pixels,"]
    request = bench.BenchRequest([NET], baselines=[], allow_leakage=True, near_duplicates=False)
    assert bench.plan_bench(request, said.append).leaks_and_warnings["t", NET][0] == stamp[:1]


SAME_SIZE = {name: change for name, change in COPIES.items() if "padded" not in name} | {
    "padded to a square": lambda i: resized(padded(i, 255), SIDE),
    "inverted, padded, mirrored": lambda i: resized(padded(255 - i)[:, ::-1], SIDE),
}


@pytest.mark.parametrize("change", SAME_SIZE)
@pytest.mark.parametrize("original", [30, 22])
def test_a_changed_copy_in_two_parts_refuses(change, original, images, tmp_path):
    images[3] = resized(SAME_SIZE[change](images[original]), SIDE)
    (found,) = split_leaks(cohort_of(tmp_path / "s.h5", images), column="split")
    between = {30: "train and test", 22: "train and val"}[original]
    assert (found.kind, found.between, found.count) == (image_copies.CONFIRMED_NEAR_DUPLICATES, between, 1)
    assert found.examples[0].startswith(f"000003 ~ 0000{original} (")


def test_the_message_says_what_was_done_to_the_image(images, tmp_path):
    images[3] = 255 - images[30][:, ::-1]
    (found,) = split_leaks(cohort_of(tmp_path / "s.h5", images), column="split")
    assert "(inverted, mirrored, " in found.examples[0]


def test_an_own_split_keeps_copies_together(images, tmp_path):
    images[3], images[5] = np.rot90(images[30]), resized(padded(255 - images[33]), SIDE)
    where = cohort_of(tmp_path / "s.h5", images)
    for seed in range(6):
        loaded = load.load_task(the_task(where, seed=seed))
        assert loaded.split.part[3] == loaded.split.part[30]
        assert loaded.split.part[5] == loaded.split.part[33]
        assert leaks.gather_split_leaks(loaded, near_duplicates=True) == []
    assert "2 patients grouped with others" in loaded.messages[-1]


def test_what_the_hash_suspects_and_the_pixels_deny_only_warns(copied):
    loaded = load.load_task(the_task(copied, column="split"))
    images = leaks.read_task_images(loaded)
    images.signs[5] = images.signs[33]  # two images with the same hash
    found = image_copies.find_near_duplicates(loaded.split, images)
    assert [(f.count, f.confirmed) for f in found] == [(1, True), (1, False)]
    ((left, right),) = found[1].pictures
    assert (left[1], right[1]) == (5, 33)
    without = image_copies.TaskImages(images.key, images.sha256, images.signs, None)
    assert [(f.count, f.confirmed) for f in image_copies.find_near_duplicates(loaded.split, without)] == [(2, False)]


def test_identical_images_are_not_counted_again(copied):
    loaded = load.load_task(the_task(copied, column="split"))
    kinds = [(f.kind, f.count) for f in leaks.gather_split_leaks(loaded, near_duplicates=True)]
    assert kinds == [("identical images", 1), (image_copies.CONFIRMED_NEAR_DUPLICATES, 1)]


def publish_pretrained(images, store=None, trimmed=True, **card):
    """The encoder `mine` of the zoo whose manifest lists these images."""
    signs = np.stack([hash_signs(np.ascontiguousarray(i)) for i in images])
    manifest = {
        "store_fingerprint": np.array([store.fingerprint] if store else ["0" * 64]),
        "sha256": check.digests_to_bytes([pixel_sha256(i) for i in images]),
        "phash": signs[:, 0],
        **({"phash_trimmed": signs[:, 2]} if trimmed else {}),
        "patient_hash": hash_patients(["nobody"], "elsewhere"),
    }
    shutil.rmtree(paths.zoo_dir(), ignore_errors=True)
    encoder = zoo.load_encoder(NET)
    publish_encoder("mine", encoder.model, encoder.card.replace(method="moco", source=None, modality="cxr", **card), manifest)


def pretraining_leaks(loaded):
    return leaks.gather_pretraining_leaks(loaded, ENTRY, near_duplicates=True)


def test_an_encoder_pretrained_on_test_images_is_refused_and_on_their_copies_suspected(copied):
    task.save_task(the_task(copied))
    loaded = load.load_task(the_task(copied))
    tested, trained = ([loaded.store.image(i) for i in loaded.split.rows(part)] for part in ("test", "train"))
    publish_pretrained(trained)
    assert pretraining_leaks(loaded) == ([], [])
    publish_pretrained(tested[:3])
    (found,), _ = pretraining_leaks(loaded)
    assert (found.kind, found.count, found.confirmed) == ("identical images", 3, True)
    publish_pretrained([recompressed(tested[0]), np.rot90(tested[1]), padded(255 - tested[2])])
    (found,), uncompared = pretraining_leaks(loaded)
    assert (found.kind, found.count, found.confirmed) == ("near-duplicates", 3, False)  # their pixels are not available
    assert uncompared == []
    whole = bench.plan_bench(bench.BenchRequest(["mine"], baselines=[]), lambda text: None)
    assert "3 suspected near-duplicates between the pretraining of mine and test" in whole.leaks_and_warnings["t", "mine"][1][0]


def test_the_pixels_of_pretraining_images_that_the_task_holds_confirm(copied):
    """Trained on row 3, tested on its copy in row 30: both are in the task's store."""
    loaded = load.load_task(the_task(copied, column="split"))
    publish_pretrained([loaded.store.image(3)])
    (found,), _ = pretraining_leaks(loaded)
    assert found.confirmed
    ((left, right),) = found.pictures
    assert (left[1], right[1]) == (3, 30)


def in_the_run(store_path, home):
    (home / "runs" / "earlier").mkdir(parents=True)
    (home / "runs" / "earlier" / "config.yaml").write_text(f"data: {{store: '{store_path}'}}\n")


def beside_the_task(store_path, home):
    pass


@pytest.mark.parametrize(("folder", "recorded"), [("far", in_the_run), (".", beside_the_task)])
def test_a_pretraining_store_that_still_exists_confirms_and_refuses(folder, recorded, images, tmp_path, monkeypatch):
    """Found by the recipe of a run, or by its name beside the task's store; in both cases by its fingerprint."""
    monkeypatch.setenv("ISOGRAFT_HOME", str(tmp_path / "home"))
    where = cohort_of(tmp_path / "task.h5", images)
    (tmp_path / folder).mkdir(exist_ok=True)
    seen = [np.ascontiguousarray(np.rot90(images[30])), resized(padded(255 - images[31]), SIDE), textured(99, SIDE)]
    corpus = Store.open(save_store(tmp_path / folder / "corpus.h5", np.stack(seen)))
    decoy = save_store(tmp_path / "corpus-2.h5", np.stack(seen[::-1]))  # other images under a matching name
    recorded(corpus.paths[0], tmp_path / "home")
    names = ["corpus*.h5"] if recorded is beside_the_task else ["elsewhere.h5"]
    publish_pretrained(seen, corpus, config={"data": {"store": names}})
    task.save_task(the_task(where, column="split"))
    with pytest.raises(InputError, match="2 near-duplicates, confirmed on their pixels, between the pretraining of mine and test"):
        bench.plan_bench(bench.BenchRequest(["mine"], baselines=[]), lambda text: None)
    assert (paths.records_dir() / "t" / "leaks-mine.png").is_file()
    corpus.paths[0].unlink()
    (found,), _ = pretraining_leaks(load.load_task(the_task(where, column="split")))
    assert (found.count, found.confirmed) == (2, False), f"{decoy} has another fingerprint"


def test_a_manifest_without_hashes_of_trimmed_images_says_what_it_misses(images, tmp_path):
    loaded = load.load_task(the_task(cohort_of(tmp_path / "task.h5", images), column="split"))
    seen = [resized(padded(images[30], 255), SIDE), images[0]]
    corpus = Store.open(save_store(tmp_path / "corpus.h5", np.stack(seen)))
    publish_pretrained(seen, corpus, trimmed=False, config={"data": {"store": ["corpus.h5"]}})
    (found,), uncompared = pretraining_leaks(loaded)
    assert (found.confirmed, found.count, uncompared) == (True, 1, [])  # computed from the pixels
    corpus.paths[0].rename(tmp_path / "moved.h5")
    found, (line,) = pretraining_leaks(loaded)
    assert found == []
    assert line.startswith("copies that were padded for the pretraining of mine could not be found among 2 of its 2 images")
    task.save_task(loaded.task)
    whole = bench.plan_bench(bench.BenchRequest(["mine"], baselines=[]), lambda text: None)
    assert line in whole.leaks_and_warnings["t", "mine"][1]
    bare = PretrainingImages("mine", {"sha256": check.digests_to_bytes(["0" * 64])}, zoo.find_encoder("mine").card, loaded.store)
    assert "no perceptual hashes" in bare.list_uncompared()[0]
    assert image_copies.find_manifest_near_duplicates("mine", {}, np.arange(3), leaks.read_task_images(loaded), bare) == []


def test_a_task_store_of_an_earlier_version_is_compared_by_its_pixels(images, tmp_path):
    images[3] = resized(padded(255 - images[30]), SIDE)
    where = cohort_of(tmp_path / "s.h5", images)
    with edit_store(where) as file:
        del file["index/phash_signs"]
    (found,) = split_leaks(where, column="split")
    assert (found.kind, found.count) == (image_copies.CONFIRMED_NEAR_DUPLICATES, 1)


def csv_rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.real
@pytest.mark.slow
def test_kermanys_official_split_has_no_copies_but_identical_images(data_dir, tmp_path):
    """No mirrored, inverted or padded radiograph of another patient is taken for a copy."""
    at = data_dir / "cxr_kermany224"
    some = csv_rows(at / "labels.csv")[::4]
    where = save_store(
        tmp_path / "k.h5",
        np.stack([read_image(at / r["file"])[..., :1] for r in some]),
        patient=[r["patient_id"] for r in some],
        labels={"sick": [float(r["label"] == "pneumonia") for r in some]},
        meta={"split": [r["split"] for r in some]},
    )
    loaded = load.load_task(the_task(where, column="split", patients_by_split=True))
    found = leaks.gather_split_leaks(loaded, near_duplicates=True)
    assert {f.kind for f in found} <= {"identical images"}


@pytest.mark.real
@pytest.mark.slow
def test_of_lc25000s_augmented_copies_those_that_were_only_flipped_are_found(data_dir, tmp_path):
    """Most of its copies were also rotated by a few degrees, which is not detected: only the name of their source tile tells."""
    at = data_dir / "path_lc25000_lung224"
    tiles = csv_rows(at / "labels.csv")[:1200]
    source = np.array([r["source_image_id"] for r in tiles])
    store = Store.open(save_store(tmp_path / "l.h5", np.stack([read_image(at / r["file"]) for r in tiles])))
    from encoders.similarity.near_duplicates import compute_copies

    pairs = compute_copies(store)
    copies = sum(n * (n - 1) // 2 for n in np.unique(source, return_counts=True)[1])
    assert 10 < len(pairs) < 0.05 * copies
    assert (source[pairs[:, 0]] == source[pairs[:, 1]]).mean() > 0.9
