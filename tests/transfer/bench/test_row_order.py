"""A store whose rows were written in another order gives the same scores: no draw, batch or tie depends on the number of a row."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from encoders.store.store import Store
from encoders.store.write import save_store
from tests.store_edits import edit_store
from tests.transfer.bench.test_bench import add, run
from tests.transfer.protocols.test_every_protocol import Spy
from tests.transfer.toys import pictures
from transfer.protocols import PROTOCOLS
from transfer.tasks.task import Task, save_task

QUICK = {
    "knn": ["knn.k=[1,3,5]"],
    "fewshot": ["fewshot.episodes=8", "fewshot.shots=[1,4]"],
    "linear": ["linear.steps=5"],
    "finetune": ["finetune.min_steps=6", "finetune.max_steps=6", "finetune.evaluations=1", "finetune.batch=8"],
}


def write_cohort(path, order):
    """60 patients with two images each, in the given order of rows; keys belong to images."""
    draw = np.random.default_rng(0)
    who = np.repeat(np.arange(60), 2)
    images, sick = pictures((who % 2).astype(float), draw.normal(0, 10, 60)[who]), (who % 2).astype(float)
    save_store(path, images[order], patient=[f"p{who[i]}" for i in order], labels={"sick": sick[order]}, dataset="toy")
    with edit_store(path) as file:
        file["index/key"][...] = [f"{i:06d}" for i in order]
    return path


def features_of_images(encoder, store, kind="pooled", index=None, **options):
    """(N, 6) whole numbers from -1 to 1 that depend on the pixels alone: many exact ties."""
    rows = np.arange(len(store)) if index is None else index
    digests = (hashlib.sha256(str(s).encode()).digest() for s in np.asarray(store.column("sha256"))[rows])
    return np.array([[b % 3 - 1 for b in d[:6]] for d in digests], dtype=np.float32)


def scores_by_key(record, part):
    return {k: s.tolist() for k, s in zip(record.arrays[f"{part}_key"].astype(str), record.arrays[f"{part}_scores"], strict=True)}


@pytest.mark.parametrize("protocol", QUICK)
def test_scores_do_not_depend_on_the_order_of_the_store(protocol, tmp_path, monkeypatch):
    if protocol != "finetune":
        monkeypatch.setattr("encoders.features.embed.extract_features", features_of_images)
    found = []
    for number, order in enumerate((np.arange(120), np.random.default_rng(1).permutation(120))):
        folder = tmp_path / str(number)
        folder.mkdir()
        spec = Task(name="sick", store=[str(write_cohort(folder / "toy.h5", order))], labels=["sick"], kind="binary", classes=["sick"])
        save_task(spec.model_copy(update={"modality": "cxr"}), replace=True)
        (made,) = run(protocols=[protocol], overrides=QUICK[protocol], recompute=True).records
        assert made.meta.error is None
        found.append(made)
    first, second = found
    for part in ("val", "test"):
        a, b = scores_by_key(first, part), scores_by_key(second, part)
        assert a.keys() == b.keys()
        assert len(a) > 8
        np.testing.assert_allclose([b[k] for k in a], [*a.values()], rtol=0, atol=1e-6)
    assert first.meta.selection.get("k") == second.meta.selection.get("k")


@pytest.mark.parametrize("protocol", ["knn", "finetune"])
def test_train_rows_reach_a_protocol_in_the_order_of_their_hashes_which_come_with_them(protocol, tmp_path, monkeypatch):
    """A protocol that orders its rows then needs no second copy of the features."""
    spy = Spy(PROTOCOLS[protocol].load())
    monkeypatch.setitem(PROTOCOLS, protocol, replace(PROTOCOLS[protocol], load=lambda: spy))
    where = write_cohort(tmp_path / "toy.h5", np.random.default_rng(1).permutation(120))
    add(where)
    run(protocols=[protocol], overrides=QUICK[protocol], recompute=True)
    train = spy.calls[0][0]
    store = Store.open(where)
    hash_of = dict(zip(store.column("key").astype(str), store.column("sha256").astype(str), strict=True))
    assert [hash_of[k] for k in train.key.astype(str)] == train.sha256.astype(str).tolist() == sorted(train.sha256.astype(str))
