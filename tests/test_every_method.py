"""Every method through the whole path: trained by the loop in half precision, exported, and measured by `transfer bench`."""

import json

import numpy as np
import pytest
import torch

from encoders.store.store import Store
from encoders.zoo import zoo
from pretrain.methods import METHODS
from pretrain.watch.spectrum import rankme
from tests.pretrain.runs import run
from tests.transfer import toys
from tests.transfer.cli.test_cli import call

SHORT = ["steps=30", "epochs=null", "warmup_steps=3", "batch=16", "size=32", "threads=1", "log_every=1", "save_every=30"]
PLAIN = ["precision=bf16", "optim.kind=adamw", "optim.lr=2e-3", "optim.lr_rule=none", "pictures=none", "augment.preset=cxr_mae"]
VIT = ["arch=vit_tiny_patch16_224", "model_args={depth: 2, patch_size: 8, embed_dim: 48}"]  # quick where bf16 is emulated, too
NETWORK = {"moco": ["arch=resnet10t"]}  # with this ViT it learns too slowly for thirty steps
SMALL = {
    "moco": {"dim": 16, "hidden": 32, "momentum": 0.9},
    "mae": {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2},
    "simclr": {"dim": 16, "hidden": 32},
    "byol": {"dim": 16, "hidden": 32, "momentum": 0.9},
    "simsiam": {"dim": 32, "bottleneck": 8},
    "barlowtwins": {"dim": 32},
    "vicreg": {"dim": 32},
    "mocov3": {"dim": 16, "hidden": 32, "momentum": 0.9},
    "dino": {"prototypes": 24, "hidden": 32, "bottleneck": 16, "n_local": 0, "momentum": 0.9, "freeze": 0.0},
    "lejepa": {"dim": 8, "hidden": 32, "slices": 64, "n_local": 0},
}


@pytest.fixture
def cohort(tmp_path):
    """A store with labels, and the keys of the task's train part."""
    store = toys.store(tmp_path / "toy.h5", patients=40)
    call("tasks", "add", "sick", store, "--label", "sick")
    call("tasks", "keys", "sick", "--out", tmp_path / "train.txt")
    return store, tmp_path / "train.txt"


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_in_half_precision_keeps_its_rank_and_is_measured(name, cohort, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    store, keys = cohort
    own = [f"method.{key}={json.dumps(value)}" for key, value in SMALL[name].items()]
    words = [f"cxr_{name}_tiny", *NETWORK.get(name, VIT), *own, *SHORT, *PLAIN]
    where = run(store, words, name, f"data.keys={keys}")
    losses = [json.loads(line)["loss"] for line in (where.path / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
    assert len(losses) == 30
    if name != "dino":  # DINO's begins low, while its teacher says one thing of all images, and rises as the teacher spreads
        assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.02 * abs(losses[0])
    images = Store.open(store)
    features = zoo.load_encoder(name).encode(images.unit_images(np.arange(len(images)))).numpy()
    assert rankme(torch.from_numpy(features)) > 2.5  # of 48; a collapsed encoder has 1
    table = call("bench", "--encoder", name, "--protocol", "knn", "--baseline", "none", "--device", "cpu")
    assert table.exit_code == 0
    assert name in table.stdout
