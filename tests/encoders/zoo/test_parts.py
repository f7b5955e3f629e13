"""Encoders made of parts against NumPy: features, storage, export, and what depends on each part's own card."""

import re

import numpy as np
import pytest
import torch

from encoders.cli.main import app
from encoders.importing.import_file import import_encoder
from encoders.importing.import_settings import ImportSettings
from encoders.runtime.errors import InputError
from encoders.runtime.paths import zoo_dir
from encoders.zoo import lineage, listing, register, zoo
from encoders.zoo.card import Card, Preprocess
from encoders.zoo.combine import combine_encoders
from encoders.zoo.parts import join_cards, join_features
from tests.encoders.zoo.small import COLOUR, tiny_card, tiny_network

A = "random_resnet10t:size=32,interpolation=bilinear,channels=1,mean=0.3,std=0.2"
B = "random_mobilenetv3_small_050:seed=2,size=64,resize=pad,mean=0.4/0.5/0.6"


def pictures(n: int = 5, height: int = 70, width: int = 50, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, channels)).astype(np.uint8)


def numpy_joined(images: np.ndarray, *names: str) -> np.ndarray:
    each = [zoo.load_encoder(name).encode(images).numpy() for name in names]
    return np.concatenate([x / np.linalg.norm(x, axis=1, keepdims=True) for x in each], axis=1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("names", [(A, B), (B, A), (A, B, "pixels"), (f"{A},stages=2/pooled", B)])
def test_features_are_the_normalised_features_of_the_parts_side_by_side(names, channels):
    images, encoder = pictures(channels=channels), zoo.load_encoder("+".join(names))
    got = encoder.encode(images).numpy()
    assert np.array_equal(got, numpy_joined(images, *names))
    assert got.shape[1] == encoder.card.dim
    assert np.abs(encoder.encode(images, batch=2).numpy() - got).max() < 1e-6


def test_the_network_that_fine_tuning_trains_gives_the_same_features():
    images, encoder = pictures(), zoo.load_encoder(f"{A}+{B}")
    with torch.inference_mode():
        got = encoder.model(encoder.prepare(images.astype(np.float32) / np.float32(255)))
    assert np.abs(got.numpy() - numpy_joined(images, A, B)).max() < 1e-6


def test_every_part_makes_its_own_input_from_an_augmented_image():
    encoder = zoo.load_encoder(f"{A}+{B}")
    assert (encoder.card.preprocess.size, encoder.card.preprocess.channels) == (64, 3)
    assert (encoder.card.preprocess.mean, encoder.card.preprocess.std) == ((0.0,) * 3, (1.0,) * 3)
    image = torch.rand(2, 3, 64, 64)
    small, large = encoder.model.part_inputs(image)
    luma = (torch.tensor([0.299, 0.587, 0.114])[:, None, None] * image).sum(1, keepdim=True)
    shrunk = torch.nn.functional.interpolate(luma, (32, 32), mode="bilinear", antialias=True)
    assert torch.allclose(small, (shrunk - 0.3) / 0.2, atol=1e-5)
    assert torch.allclose(large, (image - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / 0.25, atol=1e-5)


def test_the_features_of_a_dead_network_stay_zero():
    joined = join_features([np.zeros((2, 3), np.float32), np.ones((2, 4), np.float32)])
    assert np.array_equal(joined, np.repeat([[0, 0, 0, 0.5, 0.5, 0.5, 0.5]], 2, axis=0))


def test_a_combined_encoder_is_stored_with_its_parts_and_loads_to_the_same_features():
    folder = combine_encoders([A, B], "both")
    files = sorted(p.name for p in folder.iterdir())
    assert files == ["card.yaml", "model.part1.safetensors", "model.part2.safetensors"]
    card = Card.read(folder / "card.yaml")
    assert [p.name for p in card.parts] == [A, B]
    assert [p.preprocess.size for p in card.parts] == [32, 64]
    images = pictures()
    assert np.array_equal(zoo.load_encoder("both").encode(images).numpy(), numpy_joined(images, A, B))
    assert all(check.passed for check in register.verify_encoder("both"))
    row = next(row for row in listing.list_encoders() if row.name == "both")
    assert (row.arch, row.size, row.channels, row.where) == ("resnet10t+mobilenetv3_small_050", "32+64", "1+3", "zoo")
    assert combine_encoders([A, B], "both") == folder  # the same again
    with pytest.raises(InputError, match="the zoo has another encoder called both"):
        combine_encoders([B, A], "both")


def test_a_stored_part_depends_on_no_other_entry_of_the_zoo():
    zoo.publish_encoder("mine", tiny_network(seed=4, preprocess=COLOUR), tiny_card("mine", COLOUR))
    combine_encoders(["mine", A], "both")
    before = zoo.load_encoder("both").encode(pictures())
    for file in (zoo_dir() / "mine").iterdir():
        file.unlink()
    (zoo_dir() / "mine").rmdir()
    zoo.publish_encoder("mine", tiny_network(seed=5, preprocess=COLOUR), tiny_card("mine", COLOUR))
    assert torch.equal(zoo.load_encoder("both").encode(pictures()), before)


@pytest.mark.parametrize("damage", ["weights", "card"])
def test_a_damaged_part_is_found(damage):
    folder = combine_encoders([A, B], "both")
    if damage == "weights":
        file = folder / "model.part2.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    else:
        card = folder / "card.yaml"
        card.write_text(card.read_text().replace("std: [0.2]", "std: [0.9]"))
        with pytest.raises(InputError, match="was changed after it was written"):
            register.verify_encoder("both")
        card.write_text(re.sub(r"^digest: .*\n", "", card.read_text(), flags=re.MULTILINE))
    failed = [check.name for check in register.verify_encoder("both") if not check.passed]
    assert failed == [f"{B}, weights" if damage == "weights" else f"{A}, canary"]


def test_an_export_is_a_weight_file_for_each_part_and_one_card(tmp_path):
    said = register.export_encoder(f"{A}+{B}", tmp_path / "out" / "both.safetensors")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["both.part1.safetensors", "both.part2.safetensors", "both.yaml"]
    assert said.count("timm.create_model") == 2
    images = pictures()
    loaded = zoo.load_encoder(str(tmp_path / "out" / "both.yaml"))
    assert np.array_equal(loaded.encode(images).numpy(), numpy_joined(images, A, B))


def test_an_export_of_one_network_is_read_back_from_its_card(tmp_path):
    register.export_encoder(A, tmp_path / "one.safetensors")
    register.export_encoder(B, tmp_path / "two.safetensors")
    assert zoo.load_encoder(str(tmp_path / "one.yaml")).sha256 == zoo.load_encoder(A).sha256
    assert zoo.load_encoder(str(tmp_path / "two.yaml")).sha256 == zoo.load_encoder(B).sha256


def test_errors_of_combining():
    for names, says in (([A], "combined of two or more"), ([A, A], "more than once")):
        with pytest.raises(InputError, match=says):
            combine_encoders(names, "x")
    zoo.publish_encoder("copy", zoo.load_encoder(A).model, zoo.find_encoder(A).card.replace(method="moco", source=None))
    with pytest.raises(InputError, match="the same encoder under two names"):
        zoo.load_encoder(f"{A}+copy")
    for name in ("pixels", "a+b", "imagenet_resnet10t"):
        with pytest.raises(InputError, match=r"not a valid encoder name|reserved"):
            combine_encoders([A, B], name)
    with pytest.raises(InputError, match="has only pooled features"):
        zoo.load_encoder(f"{A}+{B}").encode(pictures(), "tokens")
    with pytest.raises(InputError, match="import each part"):
        import_encoder(zoo_dir() / "x", ImportSettings(), card=zoo.find_encoder(f"{A}+{B}").card)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dim": 5}, "sum of their widths"),
        ({"stages": [1]}, "no stages of its own"),
        ({"parts": [tiny_card().model_dump()]}, "two or more"),
    ],
)
def test_a_card_with_inconsistent_parts_is_refused(change, says):
    card = join_cards("x", [tiny_card("a"), tiny_card("b", Preprocess(size=96))])
    with pytest.raises(InputError, match=says):
        card.replace(**change)


def test_lineage_follows_every_part():
    zoo.publish_encoder("first", tiny_network(1), tiny_card("first", lineage={"init": "random:1"}))
    zoo.publish_encoder("second", tiny_network(2), tiny_card("second", method="moco", steps=9, lineage={"init": "first"}))
    zoo.publish_encoder("third", tiny_network(3), tiny_card("third", lineage={"init": "gone"}))
    names = [name for name, _ in lineage.lineage_chain("second+third")]
    assert names == ["second+third", "second", "third", "first", "gone"]
    described = lineage.describe_lineage("second+third")
    assert described == (
        "second+third <- [second (moco, 9 steps) <- first <- random weights, seed 1; third <- gone (not available locally)]"
    )


def test_the_command_combines_and_shows(capsys):
    with pytest.raises(SystemExit) as done:
        app(["combine", A, B, "--name", "both"])
    assert done.value.code in (0, None)
    assert "check it with `encoders verify both`" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        app(["show", "both"])
    shown = capsys.readouterr().out
    assert "model.part1.safetensors" in shown
    assert "parts:" in shown
