"""Exported folders, read by timm, transformers and huggingface_hub themselves."""

import csv
import json
import warnings

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from typer.testing import CliRunner

import encoders
from encoders.cli.main import app
from encoders.runtime.errors import InputError
from encoders.runtime.paths import records_dir, zoo_dir
from encoders.zoo import backbone, canary, evaluation, export_folder, licences, zoo
from encoders.zoo.card import Card, Preprocess
from encoders.zoo.preprocess import prepare_input
from tests.encoders.zoo.small import tiny_card, tiny_network

ODD = {"mean": (0.3, 0.4, 0.5), "std": (0.2, 0.21, 0.22)}
NETWORKS = {
    "resnet10t": ({}, Preprocess(size=64, crop_pct=0.875, interpolation="bilinear", **ODD)),
    "vit_tiny_patch16_224": ({"depth": 2, "init_values": 1e-5}, Preprocess(size=48, **ODD)),
    "mobilenetv2_050": ({"pad_type": "same"}, Preprocess(size=64, resize="squash", channels=1, mean=(0.3,), std=(0.2,))),
    "swin_tiny_patch4_window7_224": ({"depths": [1, 1], "num_heads": [2, 2], "embed_dim": 24}, Preprocess(size=224, **ODD)),
}


def publish(arch: str, args: dict | None = None, preprocess: Preprocess | None = None, name: str = "mine", **more) -> np.ndarray:
    """An entry of the zoo with random weights; its features of the canary images."""
    own, p = NETWORKS.get(arch, ({}, None))
    args, p = own if args is None else args, preprocess or p
    model = backbone.build_backbone(arch, args, p.channels, p.size, seed=3)
    for i, value in enumerate(model.state_dict().values()):  # statistics and scales that are not those of a new network
        if value.is_floating_point():
            value.add_(torch.rand(value.shape, generator=torch.Generator().manual_seed(i)) * 0.05)
    zoo.publish_encoder(name, model, Card(name=name, arch=arch, model_args=args, dim=1, preprocess=p, **more))
    return encoders.load(name).encode(canary.canary_images(p.channels)).numpy()


def prepared(p: Preprocess) -> torch.Tensor:
    return prepare_input(canary.canary_images(p.channels), p).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("arch", NETWORKS)
def test_timm_gives_the_same_features_and_data_config(arch, tmp_path):
    want, p = publish(arch), NETWORKS[arch][1]
    export_folder.export_folder("mine", tmp_path / "out")
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert np.array_equal(model(prepared(p)).numpy(), want)
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (p.channels, p.size, p.size) or config["input_size"] == [p.channels, p.size, p.size]
    assert (tuple(config["mean"]), tuple(config["std"])) == (p.mean, p.std)
    assert (config["interpolation"], config["crop_pct"]) == (p.interpolation, p.crop_pct)
    assert config["crop_mode"] == {"crop": "center", "squash": "squash"}[p.resize]


@pytest.mark.parametrize("arch", ["resnet10t", "vit_tiny_patch16_224"])
def test_timms_transform_prepares_the_same_pixels_up_to_8_bit_rounding(arch, tmp_path):
    publish(arch)
    export_folder.export_folder("mine", tmp_path / "out")
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    image = (
        np.random.default_rng(0).integers(64, 192, (24, 24, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    )  # no bicubic overshoot to clip
    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(model))(Image.fromarray(image))
    ours = prepare_input(image[None] / np.float32(255), NETWORKS[arch][1])[0]
    assert float((theirs - ours).abs().max()) < 1.6 / 255 / min(NETWORKS[arch][1].std)


def test_transformers_gives_the_same_features_and_input(tmp_path):
    transformers = pytest.importorskip("transformers")
    want, p = publish("vit_tiny_patch16_224"), NETWORKS["vit_tiny_patch16_224"][1]
    export_folder.export_folder("mine", tmp_path / "out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
        processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    with torch.inference_mode():
        out = model(prepared(p)).pooler_output.numpy()
    assert np.array_equal(out, want)
    image = Image.fromarray((canary.canary_images()[0] * 255).astype(np.uint8))
    assert processor(image)["pixel_values"].shape == (1, 3, 48, 48)
    assert list(processor.data_config["mean"]) == list(p.mean)


def test_a_backbone_of_transformers_has_the_last_map(tmp_path):
    transformers = pytest.importorskip("transformers")
    publish("vit_tiny_patch16_224")
    export_folder.export_folder("mine", tmp_path / "out")
    x = prepared(NETWORKS["vit_tiny_patch16_224"][1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.TimmBackbone.from_pretrained(f"local-dir:{tmp_path / 'out'}").eval()
    with torch.inference_mode():
        want = encoders.load("mine").model.forward_intermediates(x, norm=False, intermediates_only=True)[-1]
        assert torch.equal(model(x).feature_maps[-1], want)


@pytest.mark.parametrize(
    ("arch", "args", "p"),
    [
        ("vit_tiny_patch16_224", {"depth": 2, "layer_norm_eps": 0.1}, Preprocess(size=48, **ODD)),
        ("vit_tiny_patch16_224", {"depth": 2, "global_pool": "cls+mean", "reg_tokens": 2}, Preprocess(size=48, **ODD)),
        ("vit_tiny_patch16_224", {"depth": 1, "mlp_layer": "SwiGLUPacked", "act_layer": "silu"}, Preprocess(size=48, **ODD)),
        ("resnet10t", {"batch_norm_eps": 0.1}, Preprocess(size=64, channels=1, mean=(0.3,), std=(0.2,))),
        ("resnet10t", {}, Preprocess(size=64, resize="crop", **ODD)),
    ],
)
def test_the_code_in_the_readme_gives_the_features(arch, args, p, tmp_path):
    publish(arch, args, p)
    exported = export_folder.export_folder("mine", tmp_path / "out")
    readme = (tmp_path / "out" / "README.md").read_text()
    code = readme.partition("```python\n")[2].partition("```")[0].replace("FOLDER", str(tmp_path / "out"))
    image = np.random.default_rng(0).integers(0, 256, (p.size, p.size, p.channels), dtype=np.uint8)
    names = {"image": Image.fromarray(image[..., 0] if p.channels == 1 else image)}
    exec(code, names)
    want = encoders.load("mine").encode(image[None])
    assert torch.allclose(names["features"], want, rtol=1e-5, atol=1e-5 * float(want.abs().max()))
    own = [key for key in args if key in ("layer_norm_eps", "batch_norm_eps", "mlp_layer")] + ["global_pool"] * ("global_pool" in args)
    assert bool(own) == any("config.json cannot state" in warning for warning in exported.warnings)
    assert all(key in readme for key in own)


def test_the_folder_is_an_encoder_and_holds_no_manifest_unless_asked(tmp_path):
    zoo.publish_encoder("mine", tiny_network(), tiny_card(), {"patient_hash": np.array(["a"])})
    export_folder.export_folder("mine", tmp_path / "out")
    names = ["README.md", "card.yaml", "config.json", "model.safetensors"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    again = encoders.load(str(tmp_path / "out"))
    assert again.sha256 == encoders.load("mine").sha256
    export_folder.export_folder("mine", tmp_path / "out", with_manifest=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*names, "manifest.npz"])
    export_folder.export_folder("mine", tmp_path / "out")  # a later export without it removes it
    assert not (tmp_path / "out" / "manifest.npz").exists()
    with pytest.raises(InputError, match="no manifest"):
        export_folder.export_folder("random_resnet10t:size=32", tmp_path / "b", with_manifest=True)


def test_a_folder_with_other_files_and_encoders_of_several_networks_are_refused(tmp_path):
    publish("resnet10t")
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"holds other files \(thesis.tex\)"):
        export_folder.export_folder("mine", tmp_path)
    with pytest.raises(InputError, match="made of several networks"):
        export_folder.export_folder("mine+pixels", tmp_path / "a")
    with pytest.raises(InputError, match="no weights"):
        export_folder.export_folder("pixels", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_the_model_card_is_valid_and_tells_licence_recipe_and_results(tmp_path):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    config = {"method": {"name": "moco"}, "batch": 64, "data": {"store": ["/home/someone/secret/x.h5"]}}
    publish("resnet10t", config=config, method="moco", steps=40, modality="cxr", licence="CC-BY-NC 4.0")
    add_results("mine", encoders.load("mine").sha256)
    exported = export_folder.export_folder("mine", tmp_path / "out")
    loaded = huggingface_hub.ModelCard.load(tmp_path / "out" / "README.md")
    assert (loaded.data.license, loaded.data.library_name, loaded.data.pipeline_tag) == ("cc-by-nc-4.0", "timm", "image-feature-extraction")
    assert {"cxr", "moco", "self-supervised-learning"} <= set(loaded.data.tags)
    first = loaded.data.eval_results[0]
    assert (first.task_name, first.metric_type, first.metric_value) == ("opacity", "roc_auc", 0.8)
    assert first.metric_args == {"protocol": "knn", "ci_low": 0.7, "ci_high": 0.9, "ci_level": 0.95}
    assert "0.800 [0.700, 0.900]" in loaded.text
    assert "moco, 40 steps" in loaded.text
    assert any("does not permit commercial use" in warning for warning in exported.warnings)
    assert "does not permit commercial use" in loaded.text
    written = "".join((tmp_path / "out" / name).read_text() for name in ("README.md", "card.yaml", "config.json"))
    assert "someone" not in written
    assert Card.read(tmp_path / "out" / "card.yaml").licence == "CC-BY-NC 4.0"


def add_results(name: str, sha256: str, protocol: str = "knn", **cells: str) -> None:
    """A row of records/table.csv and the record it was made from."""
    path = records_dir() / "table.csv"
    row = {
        "task": "opacity",
        "protocol": protocol,
        "encoder": name,
        "status": "ok",
        "auroc": "0.8",
        "auroc_low": "0.7",
        "auroc_high": "0.9",
    }
    (records_dir() / "opacity").mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [*row, "fraction", "shots", "precision"])
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow({**row, **cells})
    identity = {"task": "opacity", "protocol": protocol, "encoder": name, "encoder_sha256": sha256}
    (records_dir() / "opacity" / f"{name}-{protocol}.json").write_text(json.dumps({"identity": identity}))


def test_the_model_card_states_the_pixels_on_the_unit_range_that_it_names(tmp_path):
    publish("resnet10t", preprocess=Preprocess(size=32, value_range=(-1024, 1024), mean=(0, 0, 0), std=(512, 512, 512)))
    export_folder.export_folder("mine", tmp_path / "out")
    assert "- pixels on [0, 1], then mean 0.5, 0.5, 0.5 and std 0.25, 0.25, 0.25" in (tmp_path / "out" / "README.md").read_text()


def test_results_with_features_in_half_precision_say_so():
    add_results("mine", "a" * 64)
    add_results("mine", "a" * 64, "linear", precision="bf16")
    add_results("mine", "a" * 64, "few", precision="bf16", shots="8")
    add_results("mine", "a" * 64, "finetune", precision="fp32")
    settings = {r.protocol: r.settings for r in evaluation.read_evaluation("mine", "a" * 64).results}
    assert settings == {"knn": "", "linear": "features in bf16", "few": "8 shots, features in bf16", "finetune": ""}


def test_results_of_other_weights_are_left_out_and_counted():
    add_results("mine", "a" * 64)
    add_results("mine", "b" * 64, "linear")
    add_results("mine", "a" * 64, "finetune", status="failed: out of memory")
    add_results("mine", "a" * 64, "few", auroc_low="nan")
    add_results("other", "a" * 64, "more")
    (records_dir() / "opacity" / "gone.json").write_text("{")
    report = evaluation.read_evaluation("mine", "a" * 64)
    assert [r.protocol for r in report.results] == ["knn"]
    assert report.left_out == {"made with other weights": 1, "failed": 1, "no interval": 1}
    assert evaluation.read_evaluation("nobody", "a" * 64).results == []


def test_a_file_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="not a table of `transfer table`: it lacks auroc"):
        evaluation.read_evaluation("mine", "a", tmp_path / "t.csv")
    with pytest.raises(InputError, match="there is no table"):
        evaluation.read_evaluation("mine", "a", tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("licence", "hub", "commercial"),
    [
        ("Apache-2.0", "apache-2.0", True),
        ("CC-BY-NC 4.0 (repo)", "cc-by-nc-4.0", False),
        ("CC BY-NC-ND 4.0", "cc-by-nc-nd-4.0", False),
        ("cc-by-nc-sa-4.0", "cc-by-nc-sa-4.0", False),
        ("MIT License", "mit", True),
        ("BSD-3", "bsd-3-clause", True),
        ("Lunit Public License, non-commercial", None, False),
        ("Owkin non-commercial license", None, False),
        ("research only", None, False),
        ("unknown", None, True),
        ("CC0 1.0", "cc0-1.0", True),
        ("incense", None, True),  # "nc" is a word of its own
    ],
)
def test_licences_are_recognised(licence, hub, commercial):
    assert licences.hub_licence(licence) == hub
    assert licences.forbids_commercial_use(licence) != commercial


def test_the_licence_of_an_ancestor_travels(tmp_path):
    publish("resnet10t", name="first", licence="cc-by-nc-4.0")
    publish("resnet10t", name="mine", licence="Apache-2.0", lineage={"init": "first"}, method="moco", steps=3)
    exported = export_folder.export_folder("mine", tmp_path / "out")
    readme = (tmp_path / "out" / "README.md").read_text()
    assert readme.startswith("---\nlicense: cc-by-nc-4.0\n")
    assert "first (cc-by-nc-4.0)" in readme
    assert exported.warnings == ["non-commercial: cc-by-nc-4.0, the licence of first, does not permit commercial use"]
    publish("resnet10t", name="orphan", lineage={"init": "gone"})
    warned = export_folder.export_folder("orphan", tmp_path / "orphan").warnings
    assert any("the licence of these weights is unknown" in line for line in warned)
    assert any("the licence of gone, from which they come, is unknown" in line for line in warned)


def test_the_command_writes_a_folder_and_says_what_it_holds(tmp_path):
    publish("resnet10t", licence="cc-by-nc-4.0")
    add_results("mine", encoders.load("mine").sha256)
    done = CliRunner().invoke(app, ["export", "mine", f"{tmp_path}/out/"])
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert "1 results on the model card" in done.output
    assert "does not permit commercial use" in done.stderr
    wrong = CliRunner().invoke(app, ["export", "mine", str(tmp_path / "a.safetensors"), "--manifest"])
    assert isinstance(wrong.exception, InputError)
    assert (zoo_dir() / "mine").is_dir()
