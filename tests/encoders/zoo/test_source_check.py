"""Canaries of network and pixels, and the comparison with a source that is run in a process of its own."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import encoders
from encoders.cli.main import app
from encoders.runtime.errors import InputError
from encoders.runtime.paths import zoo_dir
from encoders.zoo import backbone, canary, register, source_check, source_status, zoo
from encoders.zoo.card import Card, Preprocess
from tests.encoders.zoo.small import tiny_card, tiny_network

COLOURED = Preprocess(size=48, mean=(0.3, 0.4, 0.5), std=(0.2, 0.21, 0.22))
VIT = {"depth": 2, "embed_dim": 48, "num_heads": 4}


def vit_card(args: dict | None = None, **pixels) -> Card:
    preprocess = Preprocess.model_validate({**COLOURED.model_dump(), **pixels})
    return Card(name="mine", arch="vit_tiny_patch16_224", model_args={**VIT, **(args or {})}, dim=48, preprocess=preprocess)


def vit(args: dict | None = None, seed: int = 0) -> torch.nn.Module:
    """A ViT whose every tensor is away from its initial value."""
    model = backbone.build_backbone("vit_tiny_patch16_224", {**VIT, **(args or {})}, 3, 48, seed=seed)
    for i, value in enumerate(model.state_dict().values()):
        value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(i)) * 0.3)
    return model


@pytest.mark.parametrize(
    "change",
    [{"mean": (0.31, 0.4, 0.5)}, {"std": (0.2, 0.21, 0.23)}, {"crop_pct": 0.875}, {"interpolation": "bilinear"}, {"resize": "squash"},
     {"resize": "pad"}, {"value_range": (-1.0, 1.0)}, {"value_range": (0.0, 255.0)}, {"size": 64}],
)  # fmt: skip
def test_every_setting_of_the_pixels_changes_their_canary(change):
    before, after = (canary.compute_pixel_canary(vit_card(**change)) for change in ({}, change))
    assert canary.canary_distance(before, after) > canary.CANARY_TOLERANCE
    if "size" not in change:  # the network sees the same tensors
        model = vit()
        assert canary.compute_network_canary(model, vit_card()) == canary.compute_network_canary(model, vit_card(**change))


@pytest.mark.parametrize(
    "args",
    [{"num_heads": 8}, {"layer_norm_eps": 1e-2}, {"act_layer": "quick_gelu"}, {"act_layer": "relu"}, {"global_pool": "cls+mean"},
     {"global_pool": "avg", "fc_norm": False}],
)  # fmt: skip
def test_every_argument_that_tensors_do_not_show_changes_the_canary_of_the_network(args):
    plain, other = vit(), backbone.build_backbone("vit_tiny_patch16_224", {**VIT, **args}, 3, 48)
    other.load_state_dict(plain.state_dict())
    a, b = canary.compute_network_canary(plain, vit_card()), canary.compute_network_canary(other, vit_card(args))
    assert canary.canary_distance(a, b) > canary.CANARY_TOLERANCE
    assert canary.compute_pixel_canary(vit_card()) == canary.compute_pixel_canary(vit_card(args))


def test_batchnorm_eps_changes_the_canary_of_the_network():
    plain, other = tiny_network(), backbone.build_backbone("test_resnet", {"batch_norm_eps": 0.1}, 1, 64)
    other.load_state_dict(plain.state_dict())
    assert canary.canary_distance(*(canary.compute_network_canary(m, tiny_card()) for m in (plain, other))) > canary.CANARY_TOLERANCE


def test_fixed_tensors_never_change():
    x = canary.network_tensors(3, 48)
    assert x.shape == (3, 3, 48, 48)
    assert [round(float(v), 4) for v in x.mean((1, 2, 3))] == list(MEANS)
    assert [round(float(v), 3) for v in x.std((1, 2, 3))] == list(STDS)


MEANS, STDS = (-0.0025, 0.0056, 0.0167), (0.993, 0.86, 0.857)  # stored cards depend on these tensors: never change them


def test_verify_tells_a_changed_network_from_changed_pixels():
    zoo.publish_encoder("mine", vit(), vit_card())
    file = zoo_dir() / "mine" / "card.yaml"
    good = Card.read(file)
    assert [check.name for check in register.verify_encoder("mine")] == ["weights", "canary", "network", "pixels", "source"]
    assert all(check.passed for check in register.verify_encoder("mine"))
    for change, failed in (
        ({"model_args": {**VIT, "num_heads": 8}}, {"canary", "network"}),
        ({"preprocess": {**good.preprocess.model_dump(), "crop_pct": 0.8}}, {"canary", "pixels"}),
    ):
        good.replace(**change).write(file)
        assert {check.name for check in register.verify_encoder("mine") if not check.passed} == failed
    good.replace(network_canary=None, pixel_canary=None).write(file)  # a card of an older version
    assert [check.name for check in register.verify_encoder("mine")] == ["weights", "canary", "source"]


def test_a_variant_has_no_canary_of_the_weights_as_trained():
    zoo.publish_encoder("mine", tiny_network(), tiny_card())
    for name in ("mine:size=96", "mine:stages=2"):
        card = zoo.find_encoder(name).card
        assert (card.canary, card.network_canary, card.pixel_canary, card.source_check) == (None,) * 4


SOURCE = """
import torch, timm
class Theirs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=48, depth=2, embed_dim=48, num_heads={heads})
        self.net.load_state_dict(torch.load("w.pt"))
    def forward(self, x):
        return self.net(x)
"""


def answer_of_source(tmp_path, heads: int = 4, transform: str = "None", prefix: str = "") -> None:
    """Fills in probe.py as its comments say, and runs it in a process without isograft."""
    folder = tmp_path / "probe"
    (folder / "theirs.py").write_text(SOURCE.replace("{heads}", str(heads)))
    text = (folder / "probe.py").read_text()
    text = text.replace("model = ... ", "import theirs\nmodel = theirs.Theirs()").replace("transform = None", f"transform = {transform}")
    (folder / "edited.py").write_text(prefix + text)
    done = subprocess.run([sys.executable, "edited.py"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def imported(tmp_path):
    """An imported encoder whose source has 4 heads, and its probe."""
    model = vit()
    zoo.publish_encoder("mine", model, vit_card().replace(source="w.pt"))
    done = CliRunner().invoke(app, ["probe", "mine", str(tmp_path / "probe")])
    assert done.exit_code == 0, done.output + repr(done.exception)
    torch.save(model.state_dict(), tmp_path / "probe" / "w.pt")
    return tmp_path


def run(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


TRANSFORM = (
    "(lambda image: __import__('torchvision').transforms.Compose([__import__('torchvision').transforms.Resize(48, interpolation=3), "
    "__import__('torchvision').transforms.CenterCrop(48), __import__('torchvision').transforms.ToTensor(), "
    "__import__('torchvision').transforms.Normalize((0.3, 0.4, 0.5), (0.2, 0.21, 0.22))])(image))"
)


def test_an_equal_source_is_recorded_with_the_largest_difference(imported):
    assert source_status.NEVER_COMPARED in run("show", "mine").output
    assert source_status.NEVER_COMPARED in run("verify", "mine").output
    assert source_status.needs_source_check(zoo.find_encoder("mine").card)
    answer_of_source(imported, transform=TRANSFORM)
    done = run("verify", "mine", "--answer", imported / "probe" / "answer.npz")
    assert done.exit_code == 0, done.output + repr(done.exception)
    check = zoo.find_encoder("mine").card.source_check
    assert check is not None
    assert check.relative < 1e-6
    assert check.tensors == 6
    assert check.gray_levels is not None
    assert check.gray_levels < 5  # Pillow rounds and clips to 8 bits between the two passes of its resizing
    assert check.software.startswith("theirs.Theirs, torch ")
    assert "equal to its source: max difference" in run("show", "mine").output
    assert run("verify", "mine").exit_code == 0
    assert not source_status.needs_source_check(zoo.find_encoder("mine").card)
    assert encoders.load("mine") is not None


def test_import_compares_with_an_answer_at_once(imported):
    answer_of_source(imported)
    words = ["import", imported / "probe" / "w.pt", "--arch", "vit_tiny_patch16_224", "--size", "48"]
    words += [f"--model-arg={key}={value}" for key, value in VIT.items()] + ["--answer", imported / "probe" / "answer.npz"]
    done = run(*words, "--mean", "0.3,0.4,0.5", "--std", "0.2,0.21,0.22", "--name", "again")
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert "again: equal to its source: max difference" in done.output
    assert zoo.find_encoder("again").card.source_check is not None
    other = run(*words, "--mean", "0.5", "--std", "0.5", "--name", "third")
    assert isinstance(other.exception, InputError)  # an answer to the tensors of another card
    assert "answers other tensors" in str(other.exception)


def test_another_function_with_the_same_tensors_is_recorded_as_not_equal(imported):
    answer_of_source(imported, heads=8)
    done = run("verify", "mine", "--answer", imported / "probe" / "answer.npz")
    assert done.exit_code == 1
    assert "NOT equal to its source" in done.output
    after = run("verify", "mine")
    assert after.exit_code == 1
    assert "source FAILED: NOT equal" in after.output


def test_an_answer_of_this_code_is_not_the_sources(imported):
    answer_of_source(imported, prefix=f"import sys; sys.path.insert(0, {str(sys.path[0])!r}); import encoders\n")
    done = run("verify", "mine", "--answer", imported / "probe" / "answer.npz")
    assert isinstance(done.exception, InputError)
    assert "was computed with isograft" in str(done.exception)
    assert zoo.find_encoder("mine").card.source_check is None


def test_answers_to_other_tensors_or_of_another_form_are_refused(imported):
    encoder, path = encoders.load("mine"), imported / "a.npz"
    x = source_check.probe_tensors(encoder.card)
    good = {"features": encoder.forward(x).numpy(), "software": json.dumps(["theirs.T"])}
    import hashlib

    inputs = hashlib.sha256(x.numpy().tobytes()).hexdigest()
    for change, message in (
        ({"inputs": "0" * 64}, "answers other tensors"),
        ({"inputs": inputs, "features": good["features"][:, :8]}, "expected finite ones"),
        ({"inputs": inputs, "features": good["features"] * np.nan}, "expected finite ones"),
        ({"inputs": inputs, "pixels": np.zeros((3, 3, 32, 32), np.float32)}, "sizes of transform and card differ"),
        ({}, "lacks inputs"),
        ({"inputs": inputs, "software": np.array([object()])}, "not an answer"),
    ):
        np.savez(path, **{**good, **change})
        with pytest.raises(InputError, match=message):
            source_check.compare_answer(encoder, path)
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="not an answer"):
        source_check.compare_answer(encoder, path)


def test_encoders_of_this_code_and_timms_need_no_comparison():
    for name in ("random_resnet10t:size=64", "imagenet_resnet18", "pixels"):
        assert not source_status.needs_source_check(zoo.find_encoder(name).card)
    assert not source_status.needs_source_check(tiny_card(config={"arch": "resnet10t"}))
    assert source_status.needs_source_check(tiny_card(source="model.safetensors"))
