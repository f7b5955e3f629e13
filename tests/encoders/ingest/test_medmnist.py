"""A MedMNIST file becomes a store with the same pixels, split and labels."""

import pickle

import numpy as np
import pytest

from encoders.ingest.medmnist.source import MedMNISTSource
from encoders.ingest.shards import ingest
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from tests.encoders.ingest.array_files import write_medmnist


def ingest_file(path, tmp_path, **options):
    source = MedMNISTSource(path, tmp_path / "spool", **options)
    ingest(source, tmp_path / "out.h5")
    return Store.open(tmp_path / "out.h5")


@pytest.mark.parametrize("packed", [True, False], ids=["compressed", "plain"])
def test_the_store_holds_pixels_split_and_labels_in_order(tmp_path, packed):
    arrays = write_medmnist(tmp_path / "pneumoniamnist.npz", packed=packed)
    store = ingest_file(tmp_path / "pneumoniamnist.npz", tmp_path)
    assert (store.dataset, store.modality, store.shape) == ("pneumoniamnist", "cxr", (28, 28, 1))
    want = np.concatenate([arrays[f"{s}_images"] for s in ("train", "val", "test")])
    np.testing.assert_array_equal(store.images(np.arange(21))[..., 0], want)
    assert store.column("split").tolist() == ["train"] * 12 + ["val"] * 4 + ["test"] * 5
    codes = np.concatenate([arrays[f"{s}_labels"] for s in ("train", "val", "test")])[:, 0]
    np.testing.assert_array_equal(store.labels("pneumonia"), codes)


def test_only_compressed_arrays_are_unpacked(tmp_path):
    for packed in (True, False):
        path = tmp_path / f"bloodmnist_{packed}.npz"
        write_medmnist(path, packed=packed)
        source = MedMNISTSource(path, tmp_path / str(packed), modality="microscopy")
        source.items()
        assert len(list((tmp_path / str(packed)).glob("*.npy"))) == (6 if packed else 0)


def test_large_colour_files_name_their_classes(tmp_path):
    arrays = write_medmnist(tmp_path / "bloodmnist_224.npz", side=224, channels=3, classes=8)
    store = ingest_file(tmp_path / "bloodmnist_224.npz", tmp_path)
    assert (store.dataset, store.modality, store.shape) == ("bloodmnist", "microscopy", (224, 224, 3))
    names = np.array(
        ["basophil", "eosinophil", "erythroblast", "immature granulocytes", "lymphocyte", "monocyte", "neutrophil", "platelet"]
    )  # medmnist/info.py
    got = np.array(store.classes("label"))[store.labels("label").astype(int)]
    want = names[np.concatenate([arrays[f"{s}_labels"] for s in ("train", "val", "test")])[:, 0]]
    assert got.tolist() == want.tolist()


def test_several_findings_become_one_column_each(tmp_path):
    arrays = write_medmnist(tmp_path / "chestmnist.npz", findings=14)
    store = ingest_file(tmp_path / "chestmnist.npz", tmp_path)
    assert len(store.label_names()) == 14
    np.testing.assert_array_equal(store.labels("hernia")[:12], arrays["train_labels"][:, 13])


def test_malignant_is_one_although_its_code_is_zero(tmp_path):
    arrays = write_medmnist(tmp_path / "breastmnist.npz")
    store = ingest_file(tmp_path / "breastmnist.npz", tmp_path)
    np.testing.assert_array_equal(store.labels("malignant")[:12], 1 - arrays["train_labels"][:, 0])


def test_an_unknown_set_keeps_its_codes_and_needs_a_modality(tmp_path):
    arrays = write_medmnist(tmp_path / "mine.npz", classes=5)
    with pytest.raises(InputError, match="--modality"):
        MedMNISTSource(tmp_path / "mine.npz", tmp_path)
    store = ingest_file(tmp_path / "mine.npz", tmp_path, modality="oct")
    np.testing.assert_array_equal(store.labels("label")[:12], arrays["train_labels"][:, 0])
    assert store.classes("label") is None


def test_the_source_is_pickled_without_its_arrays(tmp_path):
    write_medmnist(tmp_path / "octmnist.npz")
    source = MedMNISTSource(tmp_path / "octmnist.npz", tmp_path / "spool")
    items = source.items()
    there = pickle.loads(pickle.dumps(source))
    assert len(pickle.dumps(source)) < 2000
    np.testing.assert_array_equal(there.read(items[-1]).image, source.read(items[-1]).image)


def test_images_can_be_resized(tmp_path):
    write_medmnist(tmp_path / "octmnist.npz")
    assert ingest_file(tmp_path / "octmnist.npz", tmp_path, size=64).shape == (64, 64, 1)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3)}, "train_images"),
        ({"train_images": np.zeros((4, 28, 28, 28), np.uint8), "train_labels": np.zeros((4, 1))}, "volumes are not supported"),
        ({"train_images": np.zeros((4, 28, 28), np.uint8), "train_labels": np.zeros((3, 1))}, "another length"),
    ],
)
def test_a_file_of_another_format_raises(tmp_path, arrays, message):
    np.savez(tmp_path / "octmnist.npz", **arrays)
    with pytest.raises(InputError, match=message):
        MedMNISTSource(tmp_path / "octmnist.npz", tmp_path)


def test_missing_and_truncated_files_raise(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        MedMNISTSource(tmp_path / "octmnist.npz", tmp_path)
    write_medmnist(tmp_path / "octmnist.npz")
    whole = (tmp_path / "octmnist.npz").read_bytes()
    (tmp_path / "octmnist.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="download it again"):
        MedMNISTSource(tmp_path / "octmnist.npz", tmp_path)


@pytest.mark.real
def test_a_real_file_is_stored_completely(tmp_path, data_dir):
    path = data_dir / "medmnist" / "pneumoniamnist.npz"
    store = ingest_file(path, tmp_path)
    with np.load(path) as arrays:
        assert len(store) == 3882 + 524 + 624
        np.testing.assert_array_equal(store.image(3882 + 100)[..., 0], arrays["val_images"][100])
        np.testing.assert_array_equal(store.labels("pneumonia")[-624:], arrays["test_labels"][:, 0])
