"""Names of encoders, encoders of runs, and weights of the hub, offline as well."""

import json
import time

import numpy as np
import pytest
import timm
import torch

from encoders.importing.import_file import import_encoder
from encoders.importing.import_settings import ImportSettings
from encoders.runtime import checkpoint
from encoders.runtime.errors import InputError
from encoders.runtime.paths import runs_dir, zoo_dir
from encoders.zoo import backbone, hub, listing, register, weights, zoo
from encoders.zoo.card import Card, Preprocess
from encoders.zoo.preprocess import prepare_input
from tests.encoders.zoo.small import GRAY, tiny_card, tiny_network


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(hub, "is_reachable", lambda address: False)


# --- names


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mien", "did you mean mine"),
        ("imagenet_resnt18", "did you mean resnet18"),
        ("random_resnt18", "did you mean resnet18"),
        ("imagenet_resnet18.a9_in1k", r"did you mean .*a1_in1k"),
        ("random_resnet10t:szie=64", "did you mean size"),
        ("random_resnet10t:seed=x", "expected a whole number"),
        ("random_resnet10t:size", "write key=value"),
        ("random_resnet10t:size=big", "size"),
        ("mine:resize=pad", r"are part of it \(size and crop_pct can be set\); write mine"),
        ("mine:size=96,model.depth=2", "are part of it"),
        ("imagenet_resnet18:mean=0.5/0.5/0.5", "mean and std belong to the weights"),
        ("runs/none", "no run called 'runs/none'"),
    ],
)
def test_the_error_for_a_wrong_name_suggests_the_nearest_one(name, says):
    zoo.publish_encoder("mine", tiny_network(), tiny_card())
    with pytest.raises(InputError, match=says):
        zoo.find_encoder(name)


def test_random_networks_are_a_function_of_their_name():
    first = zoo.load_encoder("random_resnet10t:seed=3,size=64")
    assert zoo.load_encoder("random_resnet10t:size=64,seed=3").sha256 == first.sha256
    assert zoo.load_encoder("random_resnet10t:3,size=64").sha256 == first.sha256
    assert zoo.load_encoder("random_resnet10t:4,size=64").sha256 != first.sha256
    assert first.card.name == "random_resnet10t:seed=3,size=64"
    one = zoo.load_encoder("random_vit_tiny_patch16_224:size=32,channels=1,model.depth=1,model.global_pool=avg")
    assert one.card.preprocess == Preprocess(size=32, channels=1, mean=(0.5,), std=(0.25,))
    assert len(one.model.blocks) == 1


@pytest.mark.parametrize(
    ("arch", "mean", "size", "crop_pct"),
    [("resnet18", 0.485, 224, 0.95), ("vit_tiny_patch16_224", 0.5, 224, 0.9), ("resnet10t", 0.485, 176, 0.875)],
)
def test_imagenet_cards_follow_the_weight_tag(arch, mean, size, crop_pct):
    p = zoo.find_encoder(f"imagenet_{arch}").card.preprocess
    assert (p.mean[0], p.size, p.crop_pct, p.channels) == (mean, size, crop_pct, 3)


@pytest.mark.slow
def test_the_table_of_common_architectures_equals_the_networks():
    for arch, facts in listing.common_archs().items():
        with torch.device("meta"):
            model = backbone.build_backbone(arch, size=facts["size"])
        assert backbone.feature_dim(model) == facts["dim"], arch
        assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == facts["params"], arch
        assert zoo.find_encoder(f"imagenet_{arch}").card.dim == facts["dim"]


def test_the_random_baseline_differs_in_weights_only():
    own = tiny_card("mine", GRAY.model_copy(update={"resize": "pad"}))
    zoo.publish_encoder("mine", tiny_network(seed=9), own)
    encoder = zoo.load_encoder("mine")
    other = zoo.load_encoder(zoo.baseline_name("random", encoder.card))
    assert other.card.preprocess == encoder.card.preprocess
    assert (other.card.arch, other.card.model_args) == (encoder.card.arch, encoder.card.model_args)
    assert other.sha256 != encoder.sha256


def test_the_imagenet_baseline_has_its_own_mean_and_the_size_of_the_encoder():
    p = zoo.find_encoder(zoo.baseline_name("imagenet", Card(name="a", arch="resnet10t", dim=512, preprocess=GRAY))).card.preprocess
    assert (p.size, p.crop_pct, p.channels, p.mean) == (64, 1.0, 3, (0.485, 0.456, 0.406))
    with pytest.raises(zoo.WeightsUnavailable, match="depth=2"):
        zoo.baseline_name("imagenet", Card(name="a", arch="vit_tiny_patch16_224", model_args={"depth": 2}, dim=192, preprocess=GRAY))


# --- runs


def test_an_encoder_of_a_run_is_read_from_a_step_the_newest_checkpoint_or_the_export():
    folder = runs_dir() / "cxr"
    for step in (5, 20):
        state = {"encoder": tiny_network(seed=step).state_dict(), "card": tiny_card().model_dump(mode="json"), "step": step}
        checkpoint.save_checkpoint(checkpoint.checkpoint_path(folder / "checkpoints", step), state)
    at5, last = zoo.load_encoder("runs/cxr@5"), zoo.load_encoder("runs/cxr")
    assert torch.equal(at5.model.conv1[0].weight, tiny_network(seed=5).conv1[0].weight)
    assert torch.equal(last.model.conv1[0].weight, tiny_network(seed=20).conv1[0].weight)
    assert at5.card.name == "runs/cxr@5"
    with pytest.raises(InputError, match="it has 5, 20"):
        zoo.load_encoder("runs/cxr@7")
    with pytest.raises(InputError, match="did you mean runs/cxr"):
        zoo.load_encoder("runs/cxx")
    np.savez(folder / "manifest.npz", sha256=np.zeros((1, 32), np.uint8))
    assert zoo.manifest_path("runs/cxr@5") == zoo.manifest_path("runs/cxr") == folder / "manifest.npz"
    state = tiny_network(seed=30).state_dict()
    sha = weights.write_state_dict(folder / "encoder" / "model.safetensors", state)
    tiny_card(sha256=sha).write(folder / "encoder" / "card.yaml")
    assert torch.equal(zoo.load_encoder("runs/cxr").model.conv1[0].weight, tiny_network(seed=30).conv1[0].weight)


def test_parameters_of_a_custom_network_are_counted_from_its_file():
    model = timm.create_model("resnet10t", num_classes=0, in_chans=1)
    path = zoo_dir() / "mine" / "model.safetensors"
    weights.write_state_dict(path, model.state_dict())
    assert listing.count_parameters(path) == sum(p.numel() for p in model.parameters())
    for damaged in (b"", b"version https://git-lfs.github.com/spec/v1\n", path.read_bytes()[:40]):
        path.write_bytes(damaged)
        assert listing.count_parameters(path) is None


# --- weights of the hub


def test_offline_the_error_names_the_weight_file_and_its_folder_within_seconds(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://192.0.2.1")  # TEST-NET: answers nobody
    for name in ("HF_HUB_OFFLINE", "ISOGRAFT_OFFLINE", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    zoo.find_encoder("imagenet_resnet18")  # imports and timm's tables are loaded before the clock starts
    begun = time.monotonic()
    with pytest.raises(
        zoo.WeightsUnavailable, match=r"put model\.safetensors of \S+/timm/resnet18\.a1_in1k at \S+/zoo/imagenet_resnet18/model"
    ):
        zoo.load_encoder("imagenet_resnet18")
    assert time.monotonic() - begun < 30  # two seconds of waiting, with room for a slow machine


def test_the_network_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("ISOGRAFT_OFFLINE", "1")
    monkeypatch.setattr(hub, "is_reachable", lambda address: pytest.fail("asked the network"))
    with pytest.raises(zoo.WeightsUnavailable, match="switched off"):
        zoo.load_encoder("imagenet_resnet18")


def test_a_weight_file_placed_in_the_zoo_is_used(no_network):
    whole = timm.create_model("resnet10t")  # with its classifier, as on the hub
    place = zoo_dir() / "imagenet_resnet10t" / "model.safetensors"
    weights.write_state_dict(place, whole.state_dict())
    encoder = zoo.load_encoder("imagenet_resnet10t:size=64")
    assert torch.equal(encoder.model.conv1[0].weight, whole.conv1[0].weight)
    assert encoder.report.dropped == ["fc.bias", "fc.weight"]
    assert "zoo (file)" in {row.where for row in listing.list_encoders() if row.name == "imagenet_resnet10t"}


def test_the_local_cache_of_the_hub_is_used_first(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "is_reachable", lambda address: pytest.fail("asked the network"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    file = tmp_path / "models--timm--resnet10t.c3_in1k" / "snapshots" / "0" / "model.safetensors"
    weights.write_state_dict(file, timm.create_model("resnet10t").state_dict())
    assert zoo.load_encoder("imagenet_resnet10t:size=64").encode(np.zeros((1, 64, 64), np.uint8)).shape == (1, 512)


def test_pretrained_vit_on_one_channel_is_the_same_function_as_on_replicated_gray(no_network):
    whole = timm.create_model("vit_tiny_patch16_224")
    weights.write_state_dict(zoo_dir() / "imagenet_vit_tiny_patch16_224" / "model.safetensors", whole.state_dict())
    x = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    name = "imagenet_vit_tiny_patch16_224:size=64"
    three, one, scaled = (zoo.load_encoder(n) for n in (name, f"{name},channels=1", f"{name},channels=1,mean=0.5,std=0.25"))
    assert one.model.patch_embed.proj.in_channels == 1
    for other in (one, scaled):
        assert (three.encode(x, "tokens") - other.encode(x, "tokens")).abs().max() <= 1e-5


def test_a_padded_stem_is_not_folded_into_another_function(no_network):
    weights.write_state_dict(zoo_dir() / "imagenet_resnet10t" / "model.safetensors", timm.create_model("resnet10t").state_dict())
    with pytest.raises(InputError, match="replicates gray images to three channels itself"):
        zoo.load_encoder("imagenet_resnet10t:size=64,channels=1")


@pytest.mark.real
def test_the_tensorflow_mobilenet_is_imported_with_its_padding(data_dir):
    file = data_dir / "imagenet_backbone" / "mobilenetv2_100_imagenet_int8dequant.pth"
    half = Preprocess(mean=(0.5,) * 3, std=(0.5,) * 3)
    own = Card(name="imagenet_mobilenetv2_100", arch="mobilenetv2_100", model_args={"pad_type": "same"}, dim=1280, preprocess=half)
    done = import_encoder(file, ImportSettings(), card=own)
    assert sorted(done.report.dropped) == ["classifier.bias", "classifier.weight"]
    assert all(check.passed for check in register.verify_encoder("imagenet_mobilenetv2_100"))
    found = zoo.find_encoder("imagenet_mobilenetv2_100:size=96")  # the entry replaces the built-in encoder and its variants
    assert (found.origin, found.card.model_args, found.card.preprocess.mean[0], found.card.preprocess.size) == (
        "zoo",
        {"pad_type": "same"},
        0.5,
        96,
    )
    assert json.loads(json.dumps(found.card.lineage)) == {}


@pytest.mark.parametrize("arch", ["resnet10t", "vit_tiny_patch16_224"])
def test_an_encoder_of_the_zoo_can_be_tested_at_another_size(arch):
    """FixRes: the weights at the size in the name, with a hash of their own; the stored card keeps its size."""
    args = {"depth": 2, "patch_size": 16, "embed_dim": 24, "num_heads": 2} if arch.startswith("vit") else {}
    network = backbone.build_backbone(arch, args, 1, 64, seed=0)
    zoo.publish_encoder("mine", network, Card(name="mine", arch=arch, model_args=args, dim=1, preprocess=GRAY))
    plain, larger = zoo.load_encoder("mine"), zoo.load_encoder("mine:size=96,crop_pct=0.9")
    assert (larger.card.preprocess.size, larger.card.preprocess.crop_pct, plain.card.preprocess.size) == (96, 0.9, 64)
    assert larger.card.preprocess.model_copy(update={"size": 64, "crop_pct": 1.0}) == plain.card.preprocess
    assert larger.sha256 != plain.sha256
    images = np.random.default_rng(0).integers(0, 256, (2, 128, 128), dtype=np.uint8)
    features = larger.encode(images)
    assert features.shape == (2, plain.card.dim)
    if arch == "resnet10t":  # the network itself does not depend on the size
        inputs = prepare_input(torch.from_numpy(images)[:, None].float() / 255, larger.card.preprocess)
        assert inputs.shape[-1] == 96
        torch.testing.assert_close(features, plain.forward(inputs))
    assert not torch.allclose(features, plain.encode(images), atol=1e-4)
    assert zoo.manifest_path("mine:size=96") == zoo.manifest_path("mine")
