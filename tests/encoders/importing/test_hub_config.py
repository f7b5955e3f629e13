"""Folders written by timm's and transformers' own code, with random weights, are read as they would read them."""

import json
import warnings

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from encoders.importing.hub_config import read_hub_config
from encoders.importing.preprocessor_config import crop_fraction, read_preprocessor
from encoders.runtime.errors import InputError
from encoders.zoo.card import Preprocess
from encoders.zoo.preprocess import prepare_input

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def blocks(size: int = 24, seed: int = 0) -> np.ndarray:
    """An image of 8 x 8 flat blocks within 64 to 192: bicubic overshoot is not clipped."""
    return np.random.default_rng(seed).integers(64, 192, (size, size, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)


def ours(image: np.ndarray, stated: dict) -> torch.Tensor:
    return prepare_input(image[None] / np.float32(255), Preprocess.model_validate(stated))[0]


@pytest.mark.parametrize("weights", ["safetensors", "bin"])
def test_timms_own_folder(tmp_path, weights):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=48, depth=1, global_pool="avg", in_chans=1)
    data = {"input_size": (1, 48, 48), "mean": (0.3,), "std": (0.2,), "crop_pct": 0.9, "crop_mode": "squash", "interpolation": "bilinear"}
    from timm.models import save_for_hf

    save_for_hf(model, tmp_path, safe_serialization=weights == "safetensors", data_config=data)
    found = read_hub_config(tmp_path)
    assert (found.library, found.arch, found.native_size) == ("timm", "vit_tiny_patch16_224", 48)
    assert {k: found.model_args[k] for k in ("depth", "global_pool")} == {"depth": 1, "global_pool": "avg"}
    assert not {"in_chans", "img_size", "num_classes"} & set(found.model_args)
    want = {"size": 48, "resize": "squash", "interpolation": "bilinear", "crop_pct": 0.9, "channels": 1, "mean": (0.3,), "std": (0.2,)}
    assert found.preprocess == want
    assert found.weight_file.name == {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}[weights]
    rebuilt = timm.create_model(found.arch, num_classes=0, img_size=48, in_chans=1, **found.model_args)
    rebuilt.load_state_dict(model.state_dict())


def test_the_licence_and_tag_that_timm_copies_from_the_base_network_are_not_taken(tmp_path):
    from timm.models import save_for_hf

    model = timm.create_model("resnet10t.c3_in1k", pretrained=False, num_classes=0)
    save_for_hf(model, tmp_path, safe_serialization=True)
    written = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    assert written.get("license") or written.get("tag")  # what would be taken
    found = read_hub_config(tmp_path)
    assert (found.licence, found.source, found.arch) == (None, None, "resnet10t")


@pytest.mark.parametrize(
    ("header", "licence"),
    [
        ("---\nlicense: cc-by-nc-4.0\n---\ntext", "cc-by-nc-4.0"),
        ("---\nlicense: other\nlicense_name: owkin-nc\n---\n", "owkin-nc"),
        ("---\nlicense:\n- mit\n- apache-2.0\n---\n", "mit, apache-2.0"),
        ("# no header\nlicense: mit\n", None),
        ("---\nlicense: [broken\n---\n", None),
        ("---\ntags: [a]\n---\n", None),
    ],
)
def test_the_licence_is_that_of_the_model_card(tmp_path, header, licence):
    timm_folder(tmp_path)
    (tmp_path / "README.md").write_text(header)
    assert read_hub_config(tmp_path).licence == licence


def timm_folder(folder, **config) -> None:
    content = {"architecture": "resnet10t", "pretrained_cfg": {"input_size": [3, 64, 64]}, **config}
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "model.safetensors").write_bytes(b"")


def test_a_flat_file_of_older_timm_and_odd_values(tmp_path):
    flat = {"architecture": "resnet10t.c3", "input_size": [3, 96, 96], "mean": [0.1] * 3, "std": [1] * 3, "crop_pct": 0.95,
            "interpolation": "random", "crop_mode": "odd"}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(flat))
    (tmp_path / "weights.pth").write_bytes(b"")
    found = read_hub_config(tmp_path)
    assert (found.arch, found.weight_file.name) == ("resnet10t", "weights.pth")
    assert found.preprocess == {"size": 96, "crop_pct": 0.95, "channels": 3, "mean": (0.1,) * 3, "std": (1.0,) * 3}
    assert [note.split(";")[1] for note in found.notes] == [" pass --interpolation", " pass --resize"]


def test_the_folder_of_transformers_wrapper_of_timm_lacks_mean_and_std(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.TimmWrapperConfig(architecture="resnet10t", model_args={"in_chans": 3})
    transformers.TimmWrapperModel(config).save_pretrained(tmp_path)
    found = read_hub_config(tmp_path)
    assert (found.library, found.model_type, found.arch) == ("timm", "timm_wrapper", "resnet10t")
    assert not {"mean", "std", "size"} & set(found.preprocess)
    assert any("pass --mean and --std" in note for note in found.notes)


DINO = {"image_size": 28, "patch_size": 14}
MODELS = {
    "dinov2": ("Dinov2", DINO, {"num_heads": 2, "layer_norm_eps": 1e-6}),
    "dinov2_with_registers": ("Dinov2WithRegisters", {**DINO, "use_swiglu_ffn": True}, {"num_heads": 2, "layer_norm_eps": 1e-6}),
    "vit": (
        "ViT",
        {"image_size": 32, "intermediate_size": 64, "hidden_act": "quick_gelu"},
        {"num_heads": 2, "layer_norm_eps": 1e-12, "act_layer": "quick_gelu"},
    ),
    "vit_mae": ("ViTMAE", {"image_size": 32, "intermediate_size": 64}, {"num_heads": 2, "layer_norm_eps": 1e-12}),
}


@pytest.mark.parametrize("kind", MODELS)
def test_transformers_own_folder(tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    name, more, args = MODELS[kind]
    config = getattr(transformers, f"{name}Config")(**SMALL, **more)
    getattr(transformers, f"{name}Model")(config).save_pretrained(tmp_path)
    processor = transformers.BitImageProcessor(size={"shortest_edge": 37}, crop_size={"height": 28, "width": 28}, image_mean=[0.5] * 3)
    processor.save_pretrained(tmp_path)
    found = read_hub_config(tmp_path)
    assert (found.library, found.model_type, found.native_size) == ("transformers", kind, more["image_size"])
    assert found.model_args == args
    assert found.position_resampling == "hf"
    image = blocks()
    theirs = torch.as_tensor(np.asarray(processor(Image.fromarray(image))["pixel_values"][0]))
    assert float((theirs - ours(image, found.preprocess)).abs().max()) < 1.6 / 255 / 0.26  # 8-bit rounding


PROCESSORS = [
    ("ViTImageProcessor", {"size": {"height": 32, "width": 32}}),
    ("ViTImageProcessor", {"size": 48, "resample": 3}),
    ("CLIPImageProcessor", {"size": 40, "crop_size": 32}),
    ("CLIPImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}),
    ("BitImageProcessor", {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}, "resample": 2}),
    ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "do_normalize": False}),
    ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "do_rescale": False, "image_mean": [100.0] * 3, "image_std": [50.0] * 3}),
    ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "rescale_factor": 1 / 127.5}),
]


@pytest.mark.parametrize(("name", "settings"), PROCESSORS)
def test_processors_of_transformers_give_the_same_pixels(tmp_path, name, settings):
    transformers = pytest.importorskip("transformers")
    processor = getattr(transformers, name)(**settings)
    processor.save_pretrained(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    described, notes = read_preprocessor(json.loads(file.read_text()), file)
    assert notes == ()
    image = blocks()
    theirs = torch.as_tensor(np.asarray(processor(Image.fromarray(image))["pixel_values"][0])).float()
    mine = ours(image, described.stated())
    white = 255 if settings.get("do_rescale") is False else settings.get("rescale_factor", 1 / 255) * 255
    assert float((theirs - mine).abs().max()) < 1.6 / 255 * white / (1 if settings.get("do_normalize") is False else min(described.std))


@pytest.mark.parametrize("size", [28, 32, 98, 224, 336, 378, 384, 448, 518])
def test_a_crop_is_exact_for_every_target(size):
    for target in range(size, 2 * size):
        assert int(size / crop_fraction(size, target)) == target


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"size": {"height": 32, "width": 48}}, "only square"),
        ({"size": {"shortest_edge": 32}, "crop_size": 64, "do_center_crop": True}, "cannot be stated on a card"),
        ({"size": {"shortest_edge": 100, "longest_edge": 200}, "image_mean": [0.5], "image_std": [0.5]}, "expected shortest_edge"),
        ({"do_resize": False, "size": 32}, "not resized"),
        ({"size": 32, "image_mean": None}, "expected numbers"),
        ({"size": "large"}, "states the size 'large'"),
        ([], "no mapping"),
    ],
)
def test_processors_that_a_card_cannot_state_are_refused(tmp_path, config, message):
    with pytest.raises(InputError, match=message):
        read_preprocessor(config, tmp_path / "preprocessor_config.json")


def test_an_open_clip_folder(tmp_path):
    config = {
        "model_cfg": {"embed_dim": 512, "vision_cfg": {"timm_model_name": "vit_base_patch16_224", "timm_pool": "", "image_size": 224}},
        "preprocess_cfg": {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic", "resize_mode": "shortest"},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"")
    found = read_hub_config(tmp_path)
    assert (found.library, found.arch, found.model_args) == ("open_clip", "vit_base_patch16_224", {})
    want = {"size": 224, "resize": "crop", "interpolation": "bicubic", "mean": (0.48, 0.46, 0.41), "std": (0.27, 0.26, 0.28)}
    assert found.preprocess == want


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no config.json"),
        ({"config.json": "{}"}, "neither `architecture`"),
        ({"config.json": "[1]"}, "holds no mapping"),
        ({"config.json": "{"}, "not JSON"),
        ({"config.json": '{"architecture": "resnet10t"}'}, "no weight file"),
        ({"config.json": '{"architecture": "resnet10t"}', "a.pth": "", "b.pth": ""}, "several weight files: a.pth, b.pth"),
        ({"config.json": '{"architecture": "resnet10t"}', "model.safetensors.index.json": "{}"}, "in several files"),
        ({"config.json": '{"model_type": "own", "auto_map": {"AutoModel": "m.M"}}', "model.safetensors": ""}, "own code .*not run"),
        ({"config.json": '{"model_type": "vit", "hidden_act": "snake"}', "model.safetensors": ""}, "activation 'snake' is not known"),
    ],
)
def test_folders_that_are_not_understood_are_refused(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_hub_config(tmp_path)


def test_a_snapshot_of_the_hubs_cache_names_its_source(tmp_path):
    folder = tmp_path / "models--owner--some--name" / "snapshots" / "abc123"
    folder.mkdir(parents=True)
    timm_folder(folder)
    with warnings.catch_warnings():
        assert read_hub_config(folder).source == "hub: owner/some--name@abc123"
