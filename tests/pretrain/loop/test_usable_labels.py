"""Labels of test images are never used, and every image is counted."""

import numpy as np
import pytest

from encoders.runtime.errors import InputError
from encoders.store.sealed_images import find_sealed_images, list_sealed_tasks, sealed_list_path
from encoders.store.store import Store
from encoders.store.write import save_store
from pretrain.loop.label_use import gather_labels
from pretrain.loop.setup import build_setup
from pretrain.loop.usable_labels import find_test_splits
from pretrain.run import lifecycle as runs
from pretrain.run import rundir
from tests.pretrain.run.test_resume import smallest
from tests.pretrain.runs import recipe, run
from tests.transfer import toys
from tests.transfer.cli.test_cli import call
from transfer.tasks.load import load_task
from transfer.tasks.task import read_task

WORDS = [*smallest("simclr"), "watch.images=0", "auxiliary.sick.weight=0.1"]


@pytest.fixture
def toy(tmp_path):
    return toys.store(tmp_path / "toy.h5", patients=40)


def labels_of(path, *words):
    setup = build_setup(recipe(path, WORDS, *words), "cpu")
    return setup.labels, setup.corpus


def test_labels_of_test_images_of_a_task_and_of_their_patients_are_left_out(toy, tmp_path):
    call("tasks", "add", "sick", toy, "--label", "sick")
    split = load_task(read_task("sick")).split
    use, images = labels_of(toy)
    (label,) = use.auxiliary
    tested = split.part == "test"
    assert np.isnan(label.values[tested]).all()
    assert np.isfinite(label.values[~tested]).all()
    assert label.counts["of the test part of task 'sick' or its patients"] == tested.sum() > 0
    assert sum(label.counts.values()) == len(images.index)
    assert any(f"{tested.sum()} of the test part of task 'sick'" in note for note in use.notes)
    others = toys.store(tmp_path / "others.h5", patients=40, each=3, seed=9)  # other images of the same people
    here = Store.open(others)
    test_patients = set(Store.open(toy).column("patient")[tested])
    assert find_sealed_images("sick", here).tolist() == [p in test_patients for p in here.column("patient")]
    renamed = Store.open(toys.store(tmp_path / "renamed.h5", patients=40, each=3, seed=9, dataset="elsewhere"))
    assert not find_sealed_images("sick", renamed).any()  # other people, other pixels
    assert find_sealed_images("sick", Store.open(toys.store(tmp_path / "copy.h5", patients=40, dataset="elsewhere"))).sum() == tested.sum()


def test_the_list_of_a_task_goes_with_it_and_a_task_without_one_is_said(toy):
    call("tasks", "add", "sick", toy, "--label", "sick")
    sealed_list_path("sick").unlink()
    assert list_sealed_tasks() == ([], ["sick"])
    use, _ = labels_of(toy)
    assert any("the test images of sick are unknown" in note for note in use.notes)
    call("tasks", "keys", "sick")
    assert list_sealed_tasks() == (["sick"], [])
    sealed_list_path("sick").write_bytes(b"damaged")
    with pytest.raises(InputError, match="write it again: transfer tasks keys sick"):
        labels_of(toy)
    call("tasks", "remove", "sick")
    assert list_sealed_tasks() == ([], [])
    assert not sealed_list_path("sick").exists()


def test_labels_of_an_official_test_part_are_left_out(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 32, 32, 1)).astype(np.uint8)
    parts = ["Train", "valid", "Test_set", "train"] * 10
    path = save_store(tmp_path / "official.h5", noise, labels={"sick": [i % 2 for i in range(20)] * 2}, meta={"split": parts})
    use, _ = labels_of(path)
    assert use.auxiliary[0].counts["in the split 'Test_set'"] == 10
    assert np.isnan(use.auxiliary[0].values).tolist() == [part == "Test_set" for part in parts]
    with pytest.raises(InputError, match=r"auxiliary\.sick\.label=sick: no label may be used \(of 10 training images; 10 in the split"):
        labels_of(path, "data.split=Test_set")


@pytest.mark.parametrize(
    ("values", "tested"),
    [
        ({"train", "val", "test"}, ["test"]),
        ({"0", "1", "2"}, ["2"]),
        ({"0", "1", "2", "3", "4"}, []),  # folds
        ({"", "training", "Hold-Out", "testA", "te", "eval"}, ["Hold-Out", "eval", "te", "testA"]),
        ({"train", "dev"}, []),
    ],
)
def test_words_for_a_test_part(values, tested):
    assert find_test_splits(values) == tested


def test_label_keys_limit_the_labels_and_the_images_stay(toy, tmp_path):
    keys = tmp_path / "labels.txt"
    keys.write_text("".join(f"{key}\n" for key in Store.open(toy).column("key")[:12]))
    use, images = labels_of(toy, f"data.label_keys={keys}")
    assert np.isfinite(use.auxiliary[0].values).sum() == 12
    assert use.auxiliary[0].share == pytest.approx(12 / 80)
    assert (len(images.index), use.auxiliary[0].counts["not in data.label_keys"]) == (80, 68)
    keys.write_text("nobody\n")
    with pytest.raises(InputError, match="data.label_keys=.*: 1 of its 1 keys"):
        labels_of(toy, f"data.label_keys={keys}")


@pytest.mark.parametrize(
    ("values", "counts", "message"),
    [
        ([0, 1, -1, None] * 10, {"labeled '0'": 10, "labeled '1'": 10, "without a label": 10, "uncertain": 10}, None),
        (["AP", "ap", "PA", ""] * 10, {"labeled 'AP'": 20, "labeled 'PA'": 10, "without a label": 10}, None),
        ([1, 1, 1, None] * 10, None, "all 30 labels are '1'.*10 without a label.*choose another label"),
        ([None] * 39 + [-1], None, "no label may be used"),
        ([2, 4, 4, 2] * 10, None, "2 different numbers from 2 to 4; set kind=number for a measurement or kind=classes"),
    ],
)
def test_every_image_is_counted_whatever_its_label(values, counts, message, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 32, 32, 1)).astype(np.uint8)
    path = save_store(tmp_path / "x.h5", noise, labels={"sick": values})
    if message:
        with pytest.raises(InputError, match=message):
            labels_of(path)
        return
    assert dict(labels_of(path)[0].auxiliary[0].counts) == counts


def test_weighted_draws_change_the_share_of_labeled_images(toy):
    setup = build_setup(recipe(toy, WORDS), "cpu")
    labeled = np.arange(80) < 20
    weights = np.where(labeled, 3.0, 1.0)
    keys = setup.corpus.store.column("key")[labeled]
    (path := toy.with_suffix(".txt")).write_text("\n".join(keys))
    cfg = setup.recipe.model_copy(update={"data": setup.recipe.data.model_copy(update={"label_keys": str(path)})})
    assert gather_labels(cfg, setup.corpus, None, weights).auxiliary[0].share == pytest.approx(60 / 120)


def test_a_resumed_run_uses_the_labels_that_it_began_with(toy, monkeypatch):
    where = run(toy, WORDS, "began")
    call("tasks", "add", "later", toy, "--label", "sick")
    said = []
    assert runs.resume_run(where, "cpu", say=said.append) == 0
    assert any("labels of test images of later may be in use" in line for line in said)
    other = run(toy, WORDS, "sealed")
    sealed_list_path("later").unlink()
    with pytest.raises(InputError, match="cannot read .*later.test.npz"):
        runs.resume_run(other, "cpu")
    call("tasks", "add", "later", toy, "--label", "sick", "--seed", "5", "--replace")
    with pytest.raises(InputError, match="the labels of this run are not those that it began with"):
        runs.resume_run(rundir.run_dir_for("sealed"), "cpu")
