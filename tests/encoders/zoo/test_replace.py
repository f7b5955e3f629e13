"""Replacing an entry of the zoo: at once, never under a child, and never with the features of the old encoder."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from encoders.cli.main import app
from encoders.features.embed import extract_features, feature_cache_path
from encoders.runtime import replace_folder
from encoders.runtime.errors import InputError
from encoders.runtime.paths import records_dir, runs_dir, zoo_dir
from encoders.store.store import Store
from encoders.zoo import zoo
from tests.encoders.zoo.small import GRAY, tiny_card, tiny_network


def publish(seed=0, replace=True, **card):
    return zoo.publish_encoder("mine", tiny_network(seed), tiny_card(**card), replace=replace)


def invoke(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, f"{done.output} {done.exception}"


def weight_file(folder, seed):
    path = folder / f"{seed}.pth"
    torch.save(tiny_network(seed).state_dict(), path)
    return path


@pytest.mark.parametrize("can_exchange", [True, False])
def test_another_encoder_takes_the_place_of_the_old_one(monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(replace_folder, "exchange_names", lambda a, b: False)
    publish()
    (zoo_dir() / "mine" / "left.txt").touch()
    folder = publish(seed=1)
    assert sorted(path.name for path in zoo_dir().iterdir()) == ["mine"]
    assert sorted(path.name for path in folder.iterdir()) == ["card.yaml", "model.safetensors"]
    got = zoo.load_encoder("mine").model.state_dict()
    assert all(torch.equal(value, got[key]) for key, value in tiny_network(1).state_dict().items())


def test_an_equal_encoder_is_not_written_again():
    publish()
    before = (zoo_dir() / "mine" / "card.yaml").stat().st_mtime_ns
    assert publish() == zoo_dir() / "mine"
    assert (zoo_dir() / "mine" / "card.yaml").stat().st_mtime_ns == before


def test_a_failed_replacement_leaves_the_old_encoder(monkeypatch):
    publish()
    old = zoo.load_encoder("mine").sha256
    monkeypatch.setattr(replace_folder, "exchange_names", lambda a, b: False)
    renamed = []

    def rename(self, target, original=type(zoo_dir()).rename):
        renamed.append(self.name)
        if len(renamed) == 2:
            raise OSError("disk full")
        return original(self, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(type(zoo_dir()), "rename", rename)
        publish(seed=1)
    assert (len(renamed), [path.name for path in zoo_dir().iterdir()]) == (3, ["mine"])
    assert zoo.load_encoder("mine").sha256 == old


@pytest.mark.parametrize("child", ["run", "encoder", "part"])
def test_an_encoder_from_which_another_started_is_not_replaced(child):
    publish()
    if child == "run":
        (runs_dir() / "next").mkdir(parents=True)
        (runs_dir() / "next" / "config.yaml").write_text("init: mine\n")
    else:
        start = "mine" if child == "encoder" else "mine+imagenet_resnet18"
        zoo.publish_encoder("next", tiny_network(2), tiny_card("next", lineage={"init": start}))
    with pytest.raises(InputError, match=r"mine was not replaced: 1 (run|encoder) refers to it .*choose another name with --name"):
        publish(seed=1)
    publish()  # the same encoder is no replacement


def test_records_do_not_hinder_because_they_hold_the_hash_of_their_encoder():
    publish()
    (records_dir() / "task").mkdir(parents=True)
    (records_dir() / "task" / "a.json").write_text(json.dumps({"identity": {"encoder": "mine"}}))
    (records_dir() / "task" / "b.json").write_text("{")
    old = zoo.load_encoder("mine").sha256
    publish(seed=1)
    assert zoo.load_encoder("mine").sha256 != old


@pytest.mark.parametrize("change", ["weights", "pixels"])
def test_cached_features_of_the_old_encoder_are_not_those_of_the_new_one(tiny_store, change):
    store = Store.open(tiny_store)
    publish()
    old = zoo.load_encoder("mine")
    before = extract_features(old, store)
    publish(seed=1) if change == "weights" else publish(preprocess=GRAY.model_copy(update={"mean": (0.3,)}))
    new = zoo.load_encoder("mine")
    assert feature_cache_path(old, store, "pooled").is_file()
    assert not feature_cache_path(new, store, "pooled").exists()
    after = extract_features(new, store)
    assert np.abs(after - before).max() > 1e-3


@pytest.fixture
def tiny_store(tmp_path):
    path = tmp_path / "x.h5"
    assert invoke("ingest", "phantom", path, "--patients", 3, "--size", 32, "--workers", 1)[0] == 0
    return path


def test_import_replaces_on_request_only(tmp_path):
    line = ["--name", "theirs", "--arch", "test_resnet", "--channels", 1, "--mean", 0.5, "--std", 0.25]
    assert invoke("import", weight_file(tmp_path, 0), *line)[0] == 0
    old = zoo.load_encoder("theirs").sha256
    code, text = invoke("import", weight_file(tmp_path, 1), *line)
    assert code
    assert "the zoo has another encoder called theirs (its sha256 differ)" in text
    assert "take --replace" in text
    assert zoo.load_encoder("theirs").sha256 == old
    assert invoke("import", weight_file(tmp_path, 1), *line, "--replace")[0] == 0
    assert zoo.load_encoder("theirs").sha256 != old


def test_pull_and_combine_replace_too(tmp_path):
    publish()
    zoo.publish_encoder("other", tiny_network(1), tiny_card("other"))
    assert invoke("export", "other", tmp_path / "other")[0] == 0
    assert invoke("pull", tmp_path / "other", "--name", "mine", "--replace")[0] == 0
    assert zoo.load_encoder("mine").sha256 == zoo.load_encoder("other").sha256
    assert invoke("combine", "other", "pixels", "--name", "mine", "--replace")[0] == 0
    assert zoo.load_encoder("mine").card.parts
