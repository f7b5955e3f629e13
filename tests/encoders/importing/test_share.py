"""Encoders sent to and taken from folders, the hub and W&B: the same weights arrive, and damage on the way is found."""

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

import encoders
from encoders.cli.main import app
from encoders.importing.pull import pull_encoder
from encoders.runtime.errors import InputError
from encoders.runtime.paths import zoo_dir
from encoders.zoo import zoo
from encoders.zoo.card import Card
from encoders.zoo.push import push_encoder
from encoders.zoo.wandb_name import ArtifactName, parse_artifact_name
from tests.encoders.zoo.small import tiny_card, tiny_network
from tests.hub_server import COMMIT, running_hub
from tests.wandb_server import run_server

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own call of its HTTP library
PROXIES = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


@pytest.fixture
def mine():
    manifest = {"patient_hash": np.array(["a", "b"])}
    zoo.publish_encoder("mine", tiny_network(), tiny_card(licence="cc-by-nc-4.0", method="moco", steps=4), manifest)
    return encoders.load("mine")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    for name in ("HF_HUB_OFFLINE", "ISOGRAFT_OFFLINE", *PROXIES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # large files by LFS, which the server has
    with running_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def same(name: str, encoder) -> bool:
    own = encoders.load(name)
    return own.sha256 == encoder.sha256 and own.card.licence == "cc-by-nc-4.0" and own.card.steps == 4


def test_a_folder_both_ways(mine, tmp_path):
    pushed = push_encoder("mine", str(tmp_path / "shared"))
    assert pushed.place == str(tmp_path / "shared" / "mine")
    assert any("does not permit commercial use" in warning for warning in pushed.warnings)
    assert push_encoder("mine", str(tmp_path / "shared")).place == pushed.place  # the same encoder again
    assert pull_encoder(pushed.place, "again") == zoo_dir() / "again"
    assert same("again", mine)
    assert not (zoo_dir() / "again" / "manifest.npz").exists()
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["mine"]


def test_the_manifest_travels_only_on_request(mine, tmp_path):
    place = push_encoder("mine", str(tmp_path / "shared"), with_manifest=True).place
    with np.load(pull_encoder(place, "again") / "manifest.npz") as arrays:
        assert arrays["patient_hash"].tolist() == ["a", "b"]


def test_another_encoder_of_that_name_is_not_replaced(mine, tmp_path):
    push_encoder("mine", str(tmp_path))
    before = (tmp_path / "mine" / "model.safetensors").read_bytes()
    zoo.publish_encoder("other", tiny_network(9), tiny_card("other"))
    (zoo_dir() / "mine").rename(zoo_dir() / "old")
    (zoo_dir() / "other").rename(zoo_dir() / "mine")
    Card.read(zoo_dir() / "mine" / "card.yaml").replace(name="mine").write(zoo_dir() / "mine" / "card.yaml")
    with pytest.raises(InputError, match="holds other weights"):
        push_encoder("mine", str(tmp_path))
    assert (tmp_path / "mine" / "model.safetensors").read_bytes() == before


def test_damage_and_edits_are_found_when_it_is_taken(mine, tmp_path):
    place = push_encoder("mine", str(tmp_path)).place
    card, weights = tmp_path / "mine" / "card.yaml", tmp_path / "mine" / "model.safetensors"
    whole, text = weights.read_bytes(), card.read_text()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match="another sha256 than its card"):
        pull_encoder(place, "a")
    weights.write_bytes(whole)
    Card.read(card).replace(sha256=None).write(card)
    with pytest.raises(InputError, match="another sha256 than its card"):
        pull_encoder(place, "a")
    changed = text.replace("mean: [0.51]", "mean: [0.4]")
    card.write_text(changed)
    with pytest.raises(InputError, match="its digest does not match"):
        pull_encoder(place, "a")
    card.write_text(re.sub("(?m)^digest: .*\n", "", changed))  # on purpose, as the message advises
    with pytest.raises(InputError, match="other features than its card states"):
        pull_encoder(place, "a")
    card.unlink()
    with pytest.raises(InputError, match=r"has no card.yaml.*`encoders import"):
        pull_encoder(place, "a")
    assert not (zoo_dir() / "a").exists()


def test_the_hub_both_ways(mine, hub):
    pytest.importorskip("huggingface_hub")
    done = CliRunner().invoke(app, ["push", "mine", "hf:group/enc"])
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert "does not permit commercial use" in done.stderr
    assert hub.created["group/enc"].get("visibility", "private") == "private"
    assert hub.created["group/enc"].get("private", True)
    assert sorted(hub.repos["group/enc"]) == ["README.md", "card.yaml", "config.json", "model.safetensors"]
    assert hub.repos["group/enc"]["model.safetensors"] == (zoo_dir() / "mine" / "model.safetensors").read_bytes()
    assert COMMIT in done.output
    took = CliRunner().invoke(app, ["pull", "hf:group/enc", "--name", "again"])
    assert took.exit_code == 0, took.output + repr(took.exception)
    assert same("again", mine)
    assert {token for _, path, token in hub.asked if path.startswith("/api/")} == {"Bearer hf_secret"}


def test_weights_that_arrived_otherwise_are_reported(mine, hub, monkeypatch):
    pytest.importorskip("huggingface_hub")
    real = hub.objects.__class__
    monkeypatch.setattr(hub, "objects", type("Damaging", (real,), {"__setitem__": lambda s, k, v: real.__setitem__(s, k, v[:-1] + b"!")})())
    with pytest.raises(InputError, match=r"group/enc has weights of sha256 .* sent were"):
        push_encoder("mine", "hf:group/enc")


def test_targets_without_a_network_say_so(mine, hub, monkeypatch):
    monkeypatch.setenv("ISOGRAFT_OFFLINE", "1")
    with pytest.raises(InputError, match="switched off"):
        push_encoder("mine", "hf:group/enc")
    for mode in ("offline", "disabled"):
        monkeypatch.setenv("WANDB_MODE", mode)
        with pytest.raises(InputError, match="online only"):
            push_encoder("mine", "wandb:team/isograft/mine")
        with pytest.raises(InputError, match="online only"):
            pull_encoder("wandb:team/isograft/mine:latest")


def test_names_of_artifacts():
    assert parse_artifact_name("wandb:a/b/c:v3") == ArtifactName("a", "b", "c", "v3")
    for wrong in ("wandb:a/b", "wandb:a/b/c:", "wandb:a/b/c/d:v1", "wandb:"):
        with pytest.raises(InputError, match="write wandb:ENTITY/PROJECT/NAME:VERSION"):
            parse_artifact_name(wrong)
    with pytest.raises(InputError, match="names no version"):
        pull_encoder("wandb:a/b/c")


@pytest.mark.slow
def test_wandb_both_ways(mine, monkeypatch):
    with run_server() as server:
        for key, value in server.env().items():
            monkeypatch.setenv(key, value)
        pushed = push_encoder("mine", "wandb:team/isograft/mine")
        assert pushed.place.startswith("W&B artifact team/isograft/mine")
        (sent,) = server.artifacts.values()
        assert sorted(sent["files"]) == ["README.md", "card.yaml", "config.json", "model.safetensors"]
        assert sent["files"]["model.safetensors"] == (zoo_dir() / "mine" / "model.safetensors").read_bytes()
        assert json.loads(sent["metadata"])["sha256"] == pushed.sha256
        assert server.leaks(str(zoo_dir())) == []
        pull_encoder("wandb:team/isograft/mine:latest", "again")
        assert same("again", mine)
