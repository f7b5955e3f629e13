"""`encoders import FOLDER` without options: the features of the source, from folders that timm and transformers wrote themselves."""

import numpy as np
import pytest
import timm
import torch
from typer.testing import CliRunner

import encoders
from encoders.cli.main import app
from encoders.runtime.errors import InputError
from encoders.zoo import zoo
from encoders.zoo.card import Card
from tests.encoders.zoo.small import tiny_card, tiny_network

pytestmark = pytest.mark.filterwarnings("ignore")


def run(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(done.exception, InputError):
        raise done.exception
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done.output


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Every tensor away from its initial value."""
    for i, value in enumerate(model.state_dict().values()):
        if value.is_floating_point():
            value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(i)) * 0.1).abs_()
    return model.eval()


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("arch", ["resnet10t", "vit_tiny_patch16_224"])
def test_a_folder_of_timm(tmp_path, arch):
    from timm.models import save_for_hf

    args = {"depth": 1, "img_size": 64} if "vit" in arch else {}
    model = randomise(timm.create_model(arch, num_classes=0, **args))
    data = {"input_size": (3, 64, 64), "mean": (0.3, 0.4, 0.5), "std": (0.2, 0.21, 0.22), "crop_pct": 0.9, "interpolation": "bilinear"}
    save_for_hf(model, tmp_path / "my_enc", safe_serialization=True, data_config=data)
    run("import", tmp_path / "my_enc")
    encoder = encoders.load("my_enc")
    p = encoder.card.preprocess
    assert (p.size, p.mean, p.std, p.crop_pct, p.interpolation, p.resize) == (64, data["mean"], data["std"], 0.9, "bilinear", "crop")
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert relative(encoder.forward(x), model(x)) < 1e-6
    assert (encoder.card.licence, encoder.card.arch) == ("unknown", arch)


FAMILIES = {
    "Dinov2": {"patch_size": 14, "image_size": 28},
    "Dinov2WithRegisters": {"patch_size": 14, "image_size": 28, "use_swiglu_ffn": True},
    "ViT": {"patch_size": 16, "image_size": 32, "intermediate_size": 128, "layer_norm_eps": 1e-3},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_of_transformers(tmp_path, name):
    transformers = pytest.importorskip("transformers")
    more = FAMILIES[name]
    config = getattr(transformers, f"{name}Config")(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, **more)
    model = randomise(getattr(transformers, f"{name}Model")(config))
    model.save_pretrained(tmp_path / "enc")
    side = more["image_size"]
    processor = transformers.BitImageProcessor(
        size={"shortest_edge": side + 4}, crop_size={"height": side, "width": side}, image_mean=[0.5, 0.4, 0.3], image_std=[0.2] * 3
    )
    processor.save_pretrained(tmp_path / "enc")
    (tmp_path / "enc" / "README.md").write_text("---\nlicense: cc-by-nc-nd-4.0\n---\n")
    run("import", tmp_path / "enc", "--name", "theirs")
    encoder = encoders.load("theirs")
    x = torch.rand(2, 3, side, side)
    with torch.inference_mode():
        want = model(x).last_hidden_state[:, 0]
        assert relative(encoder.forward(x), want) < 1e-5
    p = encoder.card.preprocess
    assert (p.size, p.resize, p.mean, p.interpolation) == (side, "crop", (0.5, 0.4, 0.3), "bicubic")
    assert int(p.size / p.crop_pct) == side + 4
    assert encoder.card.licence == "cc-by-nc-nd-4.0"


def test_options_replace_what_the_folder_states(tmp_path):
    from timm.models import save_for_hf

    save_for_hf(timm.create_model("resnet10t", num_classes=0), tmp_path / "a", safe_serialization=True)
    run("import", tmp_path / "a", "--size", "96", "--licence", "mit", "--mean", "0.25", "--std", "0.5", "--name", "b")
    card = zoo.find_encoder("b").card
    assert (card.preprocess.size, card.licence, card.preprocess.mean) == (96, "mit", (0.25,) * 3)


def test_an_exported_folder_comes_back_as_it_was(tmp_path):
    zoo.publish_encoder("mine", tiny_network(), tiny_card(method="moco", steps=3, modality="cxr", licence="cc-by-4.0"))
    run("export", "mine", tmp_path / "out")
    run("import", tmp_path / "out", "--name", "again")
    a, b = encoders.load("mine"), encoders.load("again")
    assert a.sha256 == b.sha256
    assert (b.card.method, b.card.steps, b.card.modality, b.card.licence) == ("moco", 3, "cxr", "cc-by-4.0")
    with pytest.raises(InputError, match="--card describes"):
        run("import", tmp_path / "out", "--name", "other", "--size", "96")
    changed = Card.read(tmp_path / "out" / "card.yaml")
    changed.replace(canary=list(np.asarray(changed.canary) * 2)).write(tmp_path / "out" / "card.yaml")
    with pytest.raises(InputError, match="canary differs"):
        run("import", tmp_path / "out", "--name", "third")
