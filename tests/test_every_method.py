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
from tests.pretrain.tiny import SMALL
from tests.transfer import toys
from tests.transfer.cli.test_cli import call

SHORT = ["steps=30", "epochs=null", "warmup_steps=3", "batch=16", "size=32", "threads=1", "log_every=1", "save_every=30"]
PLAIN = ["precision=bf16", "optim.kind=adamw", "optim.lr=2e-3", "optim.lr_rule=none", "pictures=none", "augment.preset=cxr_mae"]
VIT = ["arch=vit_tiny_patch16_224", "model_args={depth: 2, patch_size: 8, embed_dim: 48}"]  # quick where bf16 is emulated, too
NETWORK = {
    "moco": ["arch=resnet10t"],  # with this ViT it learns too slowly for thirty steps
    "spark": ["arch=test_resnet", "model_args={output_stride: 8}"],
}
LABELS = {"supcon": ["method.label=sick"]}
SETTINGS = {name: {key: value for key, value in own.items() if key != "scale_momentum"} for name, own in SMALL.items()}
# DINO's loss is low at first, while its teacher gives all images the same output, and rises as the teacher spreads.
LOSS_FALLS = {name: name not in ("dino",) for name in METHODS}


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
    own = [f"method.{key}={json.dumps(value)}" for key, value in SETTINGS[name].items()] + LABELS.get(name, [])
    words = [f"cxr_{name}_tiny", *NETWORK.get(name, VIT), *own, *SHORT, *PLAIN]
    where = run(store, words, name, f"data.keys={keys}")
    losses = [json.loads(line)["loss"] for line in (where.path / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
    assert len(losses) == 30
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.02 * abs(losses[0]) or not LOSS_FALLS[name]
    images = Store.open(store)
    features = zoo.load_encoder(name).encode(images.unit_images(np.arange(len(images)))).numpy()
    assert rankme(torch.from_numpy(features)) > 2.5  # of 48; a collapsed encoder has 1
    table = call("bench", "--encoder", name, "--protocol", "knn", "--baseline", "none", "--device", "cpu")
    assert table.exit_code == 0
    assert name in table.stdout
