"""Several processes fill the cache of features at the same time: each gets the same features, and one complete file remains."""

import os

import numpy as np

from encoders.features.embed import extract_features
from encoders.store.store import Store
from encoders.store.write import save_store
from encoders.zoo import zoo
from tests.forked import use_fork_server


def embed_store(path, gate, out, number):
    import torch

    torch.set_num_threads(1)
    encoder = zoo.load_encoder("random_resnet10t:size=32,channels=1", "cpu")
    gate.wait()
    np.save(out / f"{number}.npy", extract_features(encoder, Store.open(path)))


def test_three_processes_that_embed_one_store_get_the_same_features_and_leave_one_file(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOGRAFT_CACHE", str(tmp_path / "cache"))
    pixels = np.random.default_rng(0).integers(0, 256, (96, 32, 32, 1)).astype(np.uint8)
    path = save_store(tmp_path / "images.h5", pixels)
    context = use_fork_server()
    gate = context.Barrier(3)
    workers = [context.Process(target=embed_store, args=(path, gate, tmp_path, number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    features = [np.load(tmp_path / f"{number}.npy") for number in range(3)]
    assert np.array_equal(features[0], features[1])
    assert np.array_equal(features[0], features[2])
    files = os.listdir(tmp_path / "cache" / "features")
    assert len(files) == 1
    assert np.array_equal(np.load(tmp_path / "cache" / "features" / files[0]), features[0])
