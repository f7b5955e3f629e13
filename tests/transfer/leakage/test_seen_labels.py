"""Labels that an encoder was trained with: a leak where they are of test images, and said in every table otherwise."""

import json

import numpy as np
import pytest

from encoders.runtime.errors import InputError
from encoders.runtime.paths import records_dir, zoo_dir
from encoders.store.sealed_images import sealed_list_path
from encoders.zoo.card import Card, list_trained_labels
from tests.pretrain.run.test_resume import smallest
from tests.pretrain.runs import run
from tests.transfer import toys
from tests.transfer.cli.test_cli import call
from transfer.leakage.seen_labels import describe_seen_labels, find_label_leaks
from transfer.tasks.split import Split

WORDS = [*smallest("simclr"), "watch.images=0"]
DIGESTS = np.array([f"{i:064x}" for i in range(6)])


def manifest_of(labeled, names=("sick", "age")):
    images = np.array([list(bytes.fromhex(d)) for d in DIGESTS[: len(labeled)]], dtype=np.uint8)
    return {"sha256": images, "label_names": np.array(names), "labeled": np.array(labeled, dtype=bool)}


def test_labels_of_test_images_are_a_leak_of_their_own():
    manifest = manifest_of([[1, 0], [1, 0], [0, 0], [1, 1]])
    key = np.array(list("abcdef"))
    (sick, age) = find_label_leaks("enc", manifest, np.array([1, 2, 3, 5]), key, DIGESTS)
    assert (sick.kind, sick.count, sick.examples, sick.confirmed) == ("images whose label 'sick' was trained on", 2, ("b", "d"), True)
    assert (age.count, age.examples) == (1, ("d",))
    assert find_label_leaks("enc", {"sha256": manifest["sha256"]}, np.array([1]), key, DIGESTS) == []


def test_labels_of_train_images_are_said_with_their_number_and_what_follows():
    split = Split(np.array(["train", "train", "val", "val", "test", "test"], dtype=object), "h", [])
    manifest = manifest_of([[1, 0], [1, 0], [1, 0], [0, 1]])
    own, other = describe_seen_labels("enc", manifest, ["Sick"], split, DIGESTS)
    assert "'sick' of 3 images (2 of 2 train images, 1 of 2 val images), which is a label of this task: it is not self-supervised" in own
    assert "'age' of 1 images (1 of 2 val images), which is no label of this task: it is not self-supervised alone" in other
    assert "(none of this task)" not in own
    (elsewhere,) = describe_seen_labels(
        "enc", manifest_of([[1]], ["sick"]), ["sick"], split, np.array([f"{i:064x}" for i in range(90, 96)])
    )
    assert "'sick' of 1 images, none of this task, which is a label of this task" in elsewhere
    assert describe_seen_labels("enc", {}, ["sick"], split, DIGESTS) == []


def test_a_benchmark_names_the_labels_of_train_images_and_refuses_those_of_test_images(tmp_path):
    store = toys.store(tmp_path / "toy.h5", patients=40)
    call("tasks", "add", "sick", store, "--label", "sick")
    call("tasks", "keys", "sick", "--out", tmp_path / "train.txt")
    run(store, WORDS, "fair", f"data.keys={tmp_path / 'train.txt'}", "auxiliary.sick.weight=0.1")
    bench = ("bench", "--protocol", "knn", "--baseline", "none", "--no-floor", "--device", "cpu", "--task", "sick", "--encoder")
    done = call(*bench, "fair")
    assert "fair was trained with the label 'sick' of 48 images (48 of 48 train images)" in " ".join(done.stdout.split())
    (record,) = (json.loads(path.read_text()) for path in records_dir().glob("sick/*.json"))
    assert any("which is a label of this task" in line for line in record["warnings"])
    run(store, WORDS, "child", f"data.keys={tmp_path / 'train.txt'}", "init=fair", "arch=null", "model_args={}")
    assert "fair was trained with the label 'sick'" in " ".join(call(*bench, "child").stdout.split())  # by its start
    assert list_trained_labels(Card.read(zoo_dir() / "child" / "card.yaml")) == ["sick (auxiliary, 48 images)"]

    sealed_list_path("sick").unlink()  # a run with labels of test images is only possible without the list
    run(store, WORDS, "leaky", "auxiliary.sick.weight=0.1")
    with pytest.raises(InputError, match="images whose label 'sick' was trained on between the pretraining of leaky and test"):
        call(*bench, "leaky")
