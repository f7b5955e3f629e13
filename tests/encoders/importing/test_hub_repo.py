"""Repositories of the hub: a server on the loopback, the cache, and what is said when there is no access."""

import json

import pytest
import torch

from encoders.importing.hub_repo import check_cached_file, fetch_hub_folder, find_snapshot, select_files
from encoders.importing.import_folder import find_import_source
from encoders.runtime.errors import InputError
from encoders.zoo import backbone, weights
from encoders.zoo.hub import WeightsUnavailable
from encoders.zoo.hub_name import HubRepo, parse_hub_name
from tests.hub_server import COMMIT, running_hub

pytest.importorskip("huggingface_hub")
CONFIG = {
    "architecture": "resnet10t",
    "model_args": {"in_chans": 1},
    "pretrained_cfg": {"input_size": [1, 64, 64], "mean": [0.4], "std": [0.3], "interpolation": "bilinear", "crop_pct": 0.9},
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    for name in ("HF_HUB_OFFLINE", "ISOGRAFT_OFFLINE", "https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with running_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        state = backbone.build_backbone("resnet10t", channels=1, size=64, seed=5).state_dict()
        server.repos["owner/enc"] = {
            "config.json": json.dumps(CONFIG).encode(),
            "README.md": b"---\nlicense: cc-by-nc-4.0\n---\n",
            "model.safetensors": weights.serialize_state_dict(state),
            "pytorch_model.bin": b"never downloaded",
            "training/optimizer.pt": b"never downloaded",
        }
        yield server


def test_a_repository_is_downloaded_once_and_then_read_without_a_network(hub, monkeypatch):
    folder = fetch_hub_folder(HubRepo("owner/enc"))
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert folder.name == COMMIT
    asked = len(hub.asked)
    assert fetch_hub_folder(HubRepo("owner/enc")) == folder
    assert fetch_hub_folder(HubRepo("owner/enc", COMMIT)) == folder
    assert len(hub.asked) == asked
    monkeypatch.setenv("ISOGRAFT_OFFLINE", "1")
    assert fetch_hub_folder(HubRepo("owner/enc")) == folder
    assert find_snapshot(HubRepo("owner/enc", "v1")) is None  # another revision is not guessed


def test_what_the_repository_states_is_what_is_imported(hub):
    found = find_import_source("hf:owner/enc@main")
    assert (found.name, found.file.name) == ("enc", "model.safetensors")
    s = found.settings
    assert (s.arch, s.size, s.channels, s.mean, s.std, s.interpolation) == ("resnet10t", 64, 1, (0.4,), (0.3,), "bilinear")
    assert (s.crop_pct, s.licence, s.source) == (0.9, "cc-by-nc-4.0", f"hub: owner/enc@{COMMIT}")
    state = weights.read_state_dict(found.file)
    want = backbone.build_backbone("resnet10t", channels=1, size=64, seed=5).state_dict()
    assert all(torch.equal(state[key], value) for key, value in want.items())


def test_a_damaged_file_of_the_cache_is_found(hub):
    folder = fetch_hub_folder(HubRepo("owner/enc"))
    stored = (folder / "model.safetensors").resolve()
    content = bytearray(stored.read_bytes())
    content[-1] ^= 1
    stored.chmod(0o644)
    stored.write_bytes(content)
    with pytest.raises(InputError, match=r"model.safetensors is damaged: its sha256 is not"):
        fetch_hub_folder(HubRepo("owner/enc"))
    check_cached_file(folder / "config.json")  # small files are not stored under a sha256


def test_access_that_is_missing_is_explained(hub, monkeypatch):
    hub.repos["owner/closed"] = {}
    hub.gated.add("owner/closed")
    with pytest.raises(WeightsUnavailable, match=r"gated: .*huggingface.co/owner/closed, run `hf auth login`"):
        fetch_hub_folder(HubRepo("owner/closed"))
    with pytest.raises(WeightsUnavailable, match=r"has no model owner/nothing, or it is private"):
        fetch_hub_folder(HubRepo("owner/nothing"))
    with pytest.raises(WeightsUnavailable, match=r"no branch, tag or commit 'v7'"):
        fetch_hub_folder(HubRepo("owner/enc", "v7"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsUnavailable, match=r"network is switched off; download it where there is a network \(`hf download"):
        fetch_hub_folder(HubRepo("owner/other"))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsUnavailable, match="does not answer"):
        fetch_hub_folder(HubRepo("owner/other"))


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["config.json", "model.safetensors", "pytorch_model.bin"], ["config.json", "model.safetensors"]),
        (["config.json", "pytorch_model.bin", "a/model.safetensors"], ["config.json", "pytorch_model.bin"]),
        (["open_clip_config.json", "open_clip_pytorch_model.bin", "x.md"], ["open_clip_config.json", "open_clip_pytorch_model.bin"]),
        (["only.ckpt"], ["only.ckpt"]),
        (["config.json"], "no weight file"),
        (["a.pt", "b.pt"], r"in several files \(a.pt, b.pt\)"),
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"], "in several files"),
    ],
)
def test_only_the_description_and_one_weight_file_are_chosen(names, wanted):
    if isinstance(wanted, list):
        assert select_files(names, HubRepo("o/n")) == wanted
    else:
        with pytest.raises(InputError, match=wanted):
            select_files(names, HubRepo("o/n"))


@pytest.mark.parametrize("text", ["hf:owner", "hf:a/b/c", "hf:a/b@", "hf:a b/c", "hf:/b", "hf:a/b@x@y", "hf:../etc", "hf:a/.."])
def test_other_names_are_refused(text):
    with pytest.raises(InputError, match="write hf:OWNER/NAME"):
        parse_hub_name(text)


def test_names_of_the_hub():
    assert parse_hub_name("hf:a-b/c.d_e@refs/pr/3") == HubRepo("a-b/c.d_e", "refs/pr/3")
    assert str(parse_hub_name("hf:a/b")) == "a/b"
