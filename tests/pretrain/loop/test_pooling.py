"""Networks of methods whose class token no loss reaches: they pool by the mean of their patches, and the card says so."""

import json

import pytest
import torch

from encoders.zoo import zoo
from pretrain.loop.setup import build_setup
from tests.pretrain.runs import recipe, run, store
from tests.pretrain.starts import SIMCLR, VIT, publish
from tests.pretrain.tiny import SMALL

RUN = [word for word in SIMCLR if not word.startswith("method") and word not in ("cxr_simclr_tiny", "init=start", "arch=null")]
PATCHES = {"global_pool": "avg", "fc_norm": False}


def words(name, *more):
    own = [f"method.{key}={str(value).lower()}" for key, value in SMALL[name].items()]
    return [f"cxr_{name}_tiny", *RUN, *own, *more]


@pytest.fixture
def images(tmp_path):
    return store(tmp_path)


def network(args):
    return ["arch=vit_tiny_patch16_224", f"model_args={json.dumps(args)}"]


@pytest.mark.parametrize("name", ["simmim", "ijepa"])
def test_the_card_and_the_encoder_pool_by_patches(images, name):
    where = run(images, words(name, *network(VIT)), "patches", "steps=1", "warmup_steps=0")
    encoder = zoo.load_encoder("patches")
    assert encoder.card.model_args == {**VIT, **PATCHES}
    x = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        want = encoder.model.forward_features(x)[:, 1:].mean(dim=1)
        torch.testing.assert_close(encoder.model(x), want)
    assert where.read()["status"] == "finished"


def test_tensors_of_the_start_stay_and_a_stated_pooling_is_kept(images):
    start = publish(arch="vit_tiny_patch16_224", **VIT)
    setup = build_setup(recipe(images, words("ijepa", "arch=null", "init=start", f"model_args={json.dumps(VIT)}")), "cpu")
    assert setup.card.model_args == {**VIT, **PATCHES}
    state = setup.method.encoder().state_dict()
    assert all(torch.equal(state[key], value) for key, value in start.items())
    for given in ({"global_pool": "token"}, {"global_pool": "avg"}, {"class_token": False, "global_pool": "avg"}):
        setup = build_setup(recipe(images, words("simmim", *network(VIT | given))), "cpu")
        assert setup.card.model_args == VIT | given
    setup = build_setup(recipe(images, ["cxr_mae_tiny", *RUN, *network(VIT), "method.decoder_width=16", "method.decoder_heads=2"]), "cpu")
    assert setup.card.model_args == VIT
