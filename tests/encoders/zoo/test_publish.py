"""Publishing encoders, exporting them, and loading damaged files."""

import numpy as np
import pytest
import timm
import torch

from encoders.runtime.errors import InputError
from encoders.runtime.files import sha256_file
from encoders.runtime.paths import zoo_dir
from encoders.zoo import canary, register, zoo
from encoders.zoo.card import Card
from tests.encoders.zoo.small import GRAY, tiny_card, tiny_network


def test_a_published_encoder_loads_with_the_same_features():
    model = tiny_network().eval()
    folder = zoo.publish_encoder("mine", model, tiny_card(modality="cxr"), {"sha256": np.zeros((2, 32), np.uint8)})
    x = np.random.default_rng(0).random((2, 64, 64), dtype=np.float32)
    encoder = zoo.load_encoder("mine")
    with torch.no_grad():
        want = model((torch.from_numpy(x)[:, None] - 0.51) / 0.25)
    assert torch.allclose(encoder.encode(x), want, atol=1e-6)
    assert encoder.card.dim == 96
    assert encoder.card.sha256 == sha256_file(folder / "model.safetensors")
    assert zoo.manifest_path("mine") == folder / "manifest.npz"
    assert sorted(p.name for p in folder.iterdir()) == ["card.yaml", "manifest.npz", "model.safetensors"]
    assert zoo.load_encoder(str(folder / "card.yaml")).sha256 == encoder.sha256


def test_publishing_again_changes_nothing_and_another_network_is_rejected():
    folder = zoo.publish_encoder("mine", tiny_network(), tiny_card())
    before = (folder / "card.yaml").stat().st_mtime_ns
    assert zoo.publish_encoder("mine", tiny_network(), tiny_card()) == folder
    assert (folder / "card.yaml").stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"another encoder called mine \(its sha256 differ\).*--name"):
        zoo.publish_encoder("mine", tiny_network(seed=1), tiny_card())
    with pytest.raises(InputError, match=r"its preprocess differ"):
        zoo.publish_encoder("mine", tiny_network(), tiny_card(preprocess=GRAY.model_copy(update={"size": 96})))
    assert zoo.load_encoder("mine").sha256
    assert [p.name for p in zoo_dir().iterdir()] == ["mine"]  # no unfinished folder next to it


def test_a_failed_publication_leaves_no_files(monkeypatch):
    def broken(*args):
        raise OSError("disk full")

    monkeypatch.setattr("encoders.zoo.publish.write_manifest", broken)
    with pytest.raises(OSError, match="disk full"):
        zoo.publish_encoder("mine", tiny_network(), tiny_card(), {"sha256": np.zeros((1, 32), np.uint8)})
    assert list(zoo_dir().iterdir()) == []


@pytest.mark.parametrize("name", ["a/b", "../a", ".a", "a:b", "", "random_a", "runs/a", "ä"])
def test_invalid_names_are_rejected(name):
    with pytest.raises(InputError, match="not a valid encoder name"):
        zoo.publish_encoder(name, tiny_network(), tiny_card())


def test_a_network_with_nan_weights_is_not_published():
    model = tiny_network()
    with torch.no_grad():
        model.conv1[0].weight[0] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        zoo.publish_encoder("mine", model, tiny_card())


def test_an_exported_file_loads_in_plain_timm_and_reproduces_the_canary(tmp_path):
    zoo.publish_encoder("mine", tiny_network(), tiny_card())
    register.export_encoder("mine", tmp_path / "out.safetensors")
    told = Card.read(tmp_path / "out.yaml")
    plain = timm.create_model("test_resnet", num_classes=0, in_chans=1, checkpoint_path=str(tmp_path / "out.safetensors"))
    assert canary.canary_distance(told.canary, canary.compute_canary(plain, told)) < 1e-5
