"""Names, the zoo's entries, offline behaviour. The command line of it is in test_cli_zoo.py."""

import json
import time

import numpy as np
import pytest
import timm
import torch

from encoders.runtime import checkpoint
from encoders.runtime.errors import InputError
from encoders.runtime.files import sha256_file
from encoders.runtime.paths import runs_dir, zoo_dir
from encoders.zoo import backbone, canary, hub, listing, register, weights, zoo
from encoders.zoo.card import Card, Preprocess

GRAY = Preprocess(size=64, channels=1, mean=(0.51,), std=(0.25,))
COLOUR = Preprocess(size=64)


def tiny(seed=0, preprocess=GRAY):
    return backbone.build_backbone("resnet10t", channels=preprocess.channels, size=64, seed=seed)


def card(name="mine", preprocess=GRAY, **more):
    return Card(name=name, arch="resnet10t", dim=1, preprocess=preprocess, **more)


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(hub, "is_reachable", lambda address: False)


# --- entries


def test_what_is_published_loads_as_it_was():
    model = tiny().eval()
    folder = zoo.publish_encoder("mine", model, card(modality="cxr"), {"sha256": np.zeros((2, 32), np.uint8)})
    x = np.random.default_rng(0).random((2, 64, 64), dtype=np.float32)
    encoder = zoo.load_encoder("mine")
    with torch.no_grad():
        want = model((torch.from_numpy(x)[:, None] - 0.51) / 0.25)
    assert torch.allclose(encoder.encode(x), want, atol=1e-6)
    assert encoder.card.dim == 512
    assert encoder.card.sha256 == sha256_file(folder / "model.safetensors")
    assert zoo.manifest_path("mine") == folder / "manifest.npz"
    assert sorted(p.name for p in folder.iterdir()) == ["card.yaml", "manifest.npz", "model.safetensors"]
    assert zoo.load_encoder(str(folder / "card.yaml")).sha256 == encoder.sha256


def test_publishing_again_is_a_no_op_and_another_network_is_refused():
    folder = zoo.publish_encoder("mine", tiny(), card())
    before = (folder / "card.yaml").stat().st_mtime_ns
    assert zoo.publish_encoder("mine", tiny(), card()) == folder
    assert (folder / "card.yaml").stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"another encoder called mine \(its sha256 differ\).*--name"):
        zoo.publish_encoder("mine", tiny(seed=1), card())
    with pytest.raises(InputError, match=r"its preprocess differ"):
        zoo.publish_encoder("mine", tiny(), card(preprocess=GRAY.model_copy(update={"size": 96})))
    assert zoo.load_encoder("mine").sha256
    assert [p.name for p in zoo_dir().iterdir()] == ["mine"]  # nothing half-written beside it


def test_a_publication_that_fails_leaves_nothing(monkeypatch):
    def broken(*args):
        raise OSError("disk full")

    monkeypatch.setattr("encoders.zoo.publish.write_manifest", broken)
    with pytest.raises(OSError, match="disk full"):
        zoo.publish_encoder("mine", tiny(), card(), {"sha256": np.zeros((1, 32), np.uint8)})
    assert list(zoo_dir().iterdir()) == []


@pytest.mark.parametrize("name", ["a/b", "../a", ".a", "a:b", "", "random_a", "runs/a", "ä"])
def test_names_that_would_not_be_found_again_are_refused(name):
    with pytest.raises(InputError, match="cannot name"):
        zoo.publish_encoder(name, tiny(), card())


def test_a_diverged_network_is_not_published():
    model = tiny()
    with torch.no_grad():
        model.conv1[0].weight[0] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        zoo.publish_encoder("mine", model, card())


def test_the_file_loads_in_plain_timm_and_answers_the_cards_canary(tmp_path):
    zoo.publish_encoder("mine", tiny(), card())
    register.export_encoder("mine", tmp_path / "out.safetensors")
    told = Card.read(tmp_path / "out.yaml")
    plain = timm.create_model("resnet10t", num_classes=0, in_chans=1, checkpoint_path=str(tmp_path / "out.safetensors"))
    assert canary.canary_distance(told.canary, canary.compute_canary(plain, told)) < 1e-5


# --- canary, verify


def test_verify_sees_a_changed_network_although_every_tensor_matches():
    args = {"pad_type": "same"}
    model = backbone.build_backbone("mobilenetv2_050", args, 3, 64, seed=0)
    own = Card(name="m", arch="mobilenetv2_050", model_args=args, dim=1, preprocess=COLOUR)
    folder = zoo.publish_encoder("m", model, own)
    assert all(check.good for check in register.verify_encoder("m"))
    good = Card.read(folder / "card.yaml")
    for wrong in ({"model_args": {}}, {"preprocess": COLOUR.model_copy(update={"mean": (0.4, 0.5, 0.5)})}):
        good.model_copy(update=wrong).write(folder / "card.yaml")
        assert [check.good for check in register.verify_encoder("m")] == [True, False]


def test_built_in_images_are_the_same_everywhere_and_not_flat():
    gray, colour = canary.canary_images(1), canary.canary_images(3)
    assert gray.shape == (3, 112, 136, 1)
    assert gray.min() >= 0
    assert gray.max() <= 1
    assert gray.std(axis=(1, 2, 3)).min() > 0.05
    assert np.allclose(colour[..., :1], gray)
    assert [float(image.mean(dtype="float64")) for image in gray] == pytest.approx(GOLDEN, abs=1e-5)


GOLDEN = [0.40285, 0.5, 0.33476]  # what stored canaries were answers to: never change


def test_torn_and_changed_files_are_told_apart_from_good_ones():
    folder = zoo.publish_encoder("mine", tiny(), card())
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"torn or no weight file; copy it again"):
        zoo.load_encoder("mine")
    changed = bytearray(whole)
    changed[-1] ^= 1
    file.write_bytes(changed)
    with pytest.raises(InputError, match=r"has sha256 .* its card says"):
        zoo.load_encoder("mine")
    file.unlink()
    with pytest.raises(InputError, match="there is no weight file"):
        zoo.load_encoder("mine")
    assert [check.good for check in register.verify_encoder("mine")] == [False]


# --- loading others' files


def saved(tmp_path, state, name="w.pth"):
    torch.save(state, tmp_path / name)
    return tmp_path / name


def test_heads_are_dropped_and_reported_and_wrappers_and_prefixes_cut_off(tmp_path):
    whole = timm.create_model("resnet10t", num_classes=5)
    moco = {f"module.encoder_q.{k}": v for k, v in whole.state_dict().items()} | {"module.queue": torch.zeros(3)}
    file = saved(tmp_path, {"state_dict": moco, "epoch": 3})
    done = register.register_encoder(file, card("theirs", COLOUR))
    assert done.report.prefix == "module.encoder_q."
    assert done.report.dropped == ["fc.bias", "fc.weight", "module.queue"]
    assert "nothing proves" in done.warnings[0]
    whole.reset_classifier(0)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(zoo.load_encoder("theirs").encode(x), whole.eval()((x - 0.5) / 0.25), atol=1e-6)


def test_a_file_with_two_networks_asks_which(tmp_path):
    state = tiny(preprocess=COLOUR).state_dict()
    file = saved(tmp_path, {f"{side}.{k}": v for side in ("encoder_q", "encoder_k") for k, v in state.items()})
    with pytest.raises(InputError, match=r"encoder_k\., encoder_q\.; choose one with --prefix"):
        register.register_encoder(file, card("theirs", COLOUR))
    assert register.register_encoder(file, card("theirs", COLOUR), prefix="encoder_k.").report.matched == len(state)


@pytest.mark.parametrize(
    ("arch", "args", "says"),
    [
        ("resnet18", {}, "tensors are not in the file"),
        ("resnet10t", {"stem_width": 16}, "have another shape"),
    ],
)
def test_a_file_of_another_network_is_refused(tmp_path, arch, args, says):
    file = saved(tmp_path, tiny(preprocess=COLOUR).state_dict())
    wrong = Card(name="theirs", arch=arch, model_args=args, dim=1, preprocess=COLOUR)
    with pytest.raises(InputError, match=says):
        register.register_encoder(file, wrong)
    assert not (zoo_dir() / "theirs").exists()


def test_a_shallower_network_does_not_load_the_top_of_a_deeper_one(tmp_path):
    deep = backbone.build_backbone("vit_tiny_patch16_224", {"depth": 3}, size=64, seed=0)
    file = saved(tmp_path, deep.state_dict())
    shallow = Card(name="t", arch="vit_tiny_patch16_224", model_args={"depth": 2}, dim=1, preprocess=COLOUR)
    with pytest.raises(InputError, match=r"belong to a larger network, first blocks\.2"):
        register.register_encoder(file, shallow)


def test_position_embeddings_are_resampled_to_another_size(tmp_path):
    vit = backbone.build_backbone("vit_tiny_patch16_224", {"depth": 1}, size=96, seed=0)
    file = saved(tmp_path, vit.state_dict())
    done = register.register_encoder(file, Card(name="t", arch="vit_tiny_patch16_224", model_args={"depth": 1}, dim=1, preprocess=COLOUR))
    assert done.report.adapted
    assert zoo.load_encoder("t").encode(torch.rand(1, 3, 64, 64), "tokens").shape == (1, 16, 192)


def test_a_file_that_could_run_code_is_not_read(tmp_path):
    torch.save(timm.create_model("resnet10t"), tmp_path / "w.pth")
    with pytest.raises(InputError, match="could run code, so it is not read"):
        weights.read_state_dict(tmp_path / "w.pth")


def test_a_torn_checkpoint_is_said_to_be_torn(tmp_path):
    file = saved(tmp_path, tiny().state_dict())
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="torn"):
        weights.read_state_dict(file)
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 255
    file.write_bytes(changed)
    with pytest.raises(InputError, match="damaged"):
        weights.read_state_dict(file)


def test_a_canary_in_the_card_must_be_met(tmp_path):
    model = tiny(preprocess=COLOUR)
    own = card("theirs", COLOUR, canary=canary.compute_canary(model, card(preprocess=COLOUR)))
    file = saved(tmp_path, model.state_dict())
    assert register.register_encoder(file, own).warnings == []
    with pytest.raises(InputError, match="does not answer as the canary"):
        register.register_encoder(file, own.model_copy(update={"preprocess": COLOUR.model_copy(update={"std": (0.5, 0.5, 0.5)})}), "other")


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
        ("mine:size=96", "are part of it; write mine"),
        ("imagenet_resnet18:mean=0.5/0.5/0.5", "mean and std belong to the weights"),
        ("runs/none", "no run called 'runs/none'"),
    ],
)
def test_a_wrong_name_is_told_with_the_nearest_right_one(name, says):
    zoo.publish_encoder("mine", tiny(), card())
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
def test_facts_about_the_usual_networks_are_those_of_the_networks():
    for arch, facts in listing.common_archs().items():
        with torch.device("meta"):
            model = backbone.build_backbone(arch, size=facts["size"])
        assert backbone.feature_dim(model) == facts["dim"], arch
        assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == facts["params"], arch
        assert zoo.find_encoder(f"imagenet_{arch}").card.dim == facts["dim"]


def test_the_random_baseline_differs_in_weights_only():
    own = card("mine", GRAY.model_copy(update={"resize": "pad"}))
    zoo.publish_encoder("mine", tiny(seed=9), own)
    encoder = zoo.load_encoder("mine")
    other = zoo.load_encoder(zoo.baseline_name("random", encoder.card))
    assert other.card.preprocess == encoder.card.preprocess
    assert (other.card.arch, other.card.model_args) == (encoder.card.arch, encoder.card.model_args)
    assert other.sha256 != encoder.sha256


def test_the_imagenet_baseline_has_its_own_mean_and_the_encoders_size():
    p = zoo.find_encoder(zoo.baseline_name("imagenet", card(preprocess=GRAY))).card.preprocess
    assert (p.size, p.crop_pct, p.channels, p.mean) == (64, 1.0, 3, (0.485, 0.456, 0.406))
    with pytest.raises(zoo.WeightsUnavailable, match="depth=2"):
        zoo.baseline_name("imagenet", Card(name="a", arch="vit_tiny_patch16_224", model_args={"depth": 2}, dim=192, preprocess=GRAY))


# --- runs


def test_runs_are_read_at_a_step_at_their_end_and_at_their_export():
    folder = runs_dir() / "cxr"
    for step in (5, 20):
        state = {"encoder": tiny(seed=step).state_dict(), "card": card().model_dump(mode="json"), "step": step}
        checkpoint.save_checkpoint(checkpoint.checkpoint_path(folder / "checkpoints", step), state)
    at5, last = zoo.load_encoder("runs/cxr@5"), zoo.load_encoder("runs/cxr")
    assert torch.equal(at5.model.conv1[0].weight, tiny(seed=5).conv1[0].weight)
    assert torch.equal(last.model.conv1[0].weight, tiny(seed=20).conv1[0].weight)
    assert at5.card.name == "runs/cxr@5"
    with pytest.raises(InputError, match="it has 5, 20"):
        zoo.load_encoder("runs/cxr@7")
    with pytest.raises(InputError, match="did you mean runs/cxr"):
        zoo.load_encoder("runs/cxx")
    np.savez(folder / "manifest.npz", sha256=np.zeros((1, 32), np.uint8))
    assert zoo.manifest_path("runs/cxr@5") == zoo.manifest_path("runs/cxr") == folder / "manifest.npz"
    state = tiny(seed=30).state_dict()
    sha = weights.write_state_dict(folder / "encoder" / "model.safetensors", state)
    card(sha256=sha).write(folder / "encoder" / "card.yaml")
    assert torch.equal(zoo.load_encoder("runs/cxr").model.conv1[0].weight, tiny(seed=30).conv1[0].weight)


def test_a_network_of_ones_own_shape_is_counted_from_its_file():
    model = timm.create_model("resnet10t", num_classes=0, in_chans=1)
    path = zoo_dir() / "mine" / "model.safetensors"
    weights.write_state_dict(path, model.state_dict())
    assert listing.count_parameters(path) == sum(p.numel() for p in model.parameters())
    for damaged in (b"", b"version https://git-lfs.github.com/spec/v1\n", path.read_bytes()[:40]):
        path.write_bytes(damaged)
        assert listing.count_parameters(path) is None


# --- weights of the hub


def test_offline_a_missing_baseline_is_named_with_its_place_within_seconds(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://192.0.2.1")  # TEST-NET: answers nobody
    for name in ("HF_HUB_OFFLINE", "ISOGRAFT_OFFLINE", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    zoo.find_encoder("imagenet_resnet18")  # imports and timm's tables are not what is timed
    begun = time.monotonic()
    with pytest.raises(
        zoo.WeightsUnavailable, match=r"put model\.safetensors of \S+/timm/resnet18\.a1_in1k at \S+/zoo/imagenet_resnet18/model"
    ):
        zoo.load_encoder("imagenet_resnet18")
    assert time.monotonic() - begun < 30  # 5 s of waiting for an answer, on any machine


def test_the_network_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("ISOGRAFT_OFFLINE", "1")
    monkeypatch.setattr(hub, "is_reachable", lambda address: pytest.fail("asked the network"))
    with pytest.raises(zoo.WeightsUnavailable, match="switched off"):
        zoo.load_encoder("imagenet_resnet18")


def test_a_file_put_at_the_named_place_is_used(no_network):
    whole = timm.create_model("resnet10t")  # with its classifier, as on the hub
    place = zoo_dir() / "imagenet_resnet10t" / "model.safetensors"
    weights.write_state_dict(place, whole.state_dict())
    encoder = zoo.load_encoder("imagenet_resnet10t:size=64")
    assert torch.equal(encoder.model.conv1[0].weight, whole.conv1[0].weight)
    assert encoder.report.dropped == ["fc.bias", "fc.weight"]
    assert "zoo (file)" in {row.where for row in listing.list_encoders() if row.name == "imagenet_resnet10t"}


def test_the_hubs_local_cache_is_looked_at_first(monkeypatch, tmp_path):
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
def test_googles_mobilenet_comes_in_by_its_provenance(data_dir):
    file = data_dir / "imagenet_backbone" / "mobilenetv2_100_imagenet_int8dequant.pth"
    half = Preprocess(mean=(0.5,) * 3, std=(0.5,) * 3)
    own = Card(name="imagenet_mobilenetv2_100", arch="mobilenetv2_100", model_args={"pad_type": "same"}, dim=1280, preprocess=half)
    done = register.register_encoder(file, own)
    assert done.report.dropped == ["classifier.bias", "classifier.weight"]
    assert all(check.good for check in register.verify_encoder("imagenet_mobilenetv2_100"))
    found = zoo.find_encoder("imagenet_mobilenetv2_100:size=96")  # the entry stands before the built-in one, variants and all
    assert (found.where, found.card.model_args, found.card.preprocess.mean[0], found.card.preprocess.size) == (
        "zoo",
        {"pad_type": "same"},
        0.5,
        96,
    )
    assert json.loads(json.dumps(found.card.lineage)) == {}
