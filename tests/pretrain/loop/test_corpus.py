"""The manifest of a run's images: hashes of images and patients, and the names of the data sets."""

import hashlib

import numpy as np

from encoders.store.store import Store
from encoders.store.write import save_store
from pretrain.loop.corpus import Corpus
from pretrain.recipe.positives import patient_codes


def make_store(path, patients, dataset, seed):
    images = np.random.default_rng(seed).integers(0, 255, (len(patients), 8, 8, 1), dtype=np.uint8)
    return save_store(path, images, patient=patients, dataset=dataset)


def test_the_manifest_of_two_stores_hashes_each_patient_with_its_data_set(tmp_path):
    a, b = make_store(tmp_path / "a.h5", ["7", "7", "p1", "NA"], "nih", 0), make_store(tmp_path / "b.h5", ["7", "007", "8"], "mimic", 1)
    corpus = Corpus(Store.open([a, b]), np.array([0, 1, 2, 3, 4, 5]))
    manifest = corpus.manifest()
    want = ["nih:7", "nih:7", "nih:p1", "nih:000003", "mimic:7", "mimic:007"]  # an unknown patient is named by the key of its image
    assert [bytes(row) for row in manifest["patient_hash"]] == [hashlib.sha256(t.encode()).digest() for t in want]
    assert dict(zip(manifest["datasets"].tolist(), manifest["dataset_patients"].tolist(), strict=True)) == {"nih": 2, "mimic": 2}
    assert len(manifest["patient_near_hash"]) == 3, "nih has 7 and p1, mimic has 7 in two spellings"
    assert all(array.dtype.kind in "uiU" for array in manifest.values()), "a manifest holds no Python objects"


def test_images_of_unknown_patients_are_not_of_one_patient_in_pretraining(tmp_path):
    store = Store.open(make_store(tmp_path / "a.h5", ["nan", "nan", "None", "p1", "p1"], "d", 0))
    assert len(np.unique(patient_codes(store))) == 4
