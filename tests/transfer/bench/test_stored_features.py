"""The bench on features of other tools: `mil` scores slides from files of CLAM and STAMP as from any encoder."""

import h5py
import numpy as np
import pytest
import torch

from tests.store_edits import edit_store
from tests.transfer import toys
from transfer.bench.bench import BenchRequest, plan_bench, run_bench
from transfer.tasks import task


@pytest.fixture
def tiles(tmp_path, monkeypatch):
    """A store of 30 patients with two slides of two tiles, with corners; and an informative feature per tile."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = toys.add_slides(toys.store(tmp_path / "tiles.h5", patients=30, each=4), [f"s{i // 2}" for i in range(120)])
    corners = np.stack([np.arange(120) % 2 * 256, np.arange(120) // 2 * 16], axis=1)
    with edit_store(path) as file:
        file["index/x"], file["index/y"] = corners[:, 0].astype(float), corners[:, 1].astype(float)
    x = np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32)
    x[:, 0] += 6 * (np.arange(120) // 4 % 2)  # the patient is sick
    task.save_task(task.Task(name="sick", store=[str(path)], labels=["sick"], kind="binary", classes=["sick"], modality="cxr"))
    return x, corners


def write_features(folder, x, corners, tool):
    for slide in range(60):
        own = np.arange(2 * slide, 2 * slide + 2)[:: -1 if slide % 3 else 1]  # in any order
        folder.mkdir(exist_ok=True)
        if tool == "clam":
            for name in ("pt_files", "h5_files"):
                (folder / name).mkdir(exist_ok=True)
            torch.save(torch.from_numpy(x[own]), folder / "pt_files" / f"s{slide}.pt")
        with h5py.File(folder / "h5_files" / f"s{slide}.h5" if tool == "clam" else folder / f"s{slide}.h5", "w") as file:
            file["features"], file["coords"] = x[own], corners[own]
    return f"features:{folder / 'pt_files' if tool == 'clam' else folder}"


def run(*encoders, **fields):
    request = BenchRequest(encoders=encoders, overrides=["mil.pooling=mean"], near_duplicates=False, baselines=[], **fields)
    return run_bench(request, plan_bench(request, lambda text: None), lambda text: None)


def test_mil_scores_slides_by_features_of_clam(tiles, tmp_path):
    clam, trident = (write_features(tmp_path / tool, *tiles, tool) for tool in ("clam", "trident"))
    result = run(clam, trident, protocols=["mil"])
    assert [(r.meta.status, r.meta.error) for r in result.records] == [("ok", None)] * 2
    one, other = result.records
    np.testing.assert_array_equal(one.arrays["test_scores"], other.arrays["test_scores"])
    y, scores = (one.arrays[name] for name in ("test_y", "test_scores"))
    assert scores[y == 1].min() > scores[y == 0].max(), "the features tell all sick slides apart"


def test_protocols_that_need_images_say_why(tiles, tmp_path):
    result = run(write_features(tmp_path / "f", *tiles, "trident"), protocols=["finetune"])
    assert [r.meta.status for r in result.records] == ["failed"]
    assert "cannot be fine-tuned" in result.records[0].meta.error
