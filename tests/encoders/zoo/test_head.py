"""A head travels with its encoder: published, exported, pulled, verified; it is left behind where the encoder becomes another one."""

import pytest
import torch
from safetensors.torch import load_file

from encoders.importing.pull import pull_encoder
from encoders.runtime.errors import InputError
from encoders.runtime.paths import zoo_dir
from encoders.zoo import combine, export_folder, register, zoo
from encoders.zoo.card import Card
from encoders.zoo.head import HeadWeights, read_head
from encoders.zoo.head_card import Head
from tests.encoders.zoo.small import tiny_card, tiny_network

WEIGHTS = HeadWeights(torch.linspace(-1, 1, 2 * 96).view(2, 96), torch.tensor([0.5, -0.5]))
HEAD = {
    "kind": "multilabel",
    "classes": ("mass", "nodule"),
    "task": "chest",
    "task_digest": "0" * 16,
    "labels_digest": "1" * 16,
    "split_digest": "2" * 16,
    "strategy": "full",
    "temperature": 1.5,
    "thresholds": (0.25, 0.75),
    "calibration_images": 40,
    "calibration_patients": 30,
    "validation_score": 0.9,
}


def publish(name="mine", weights=WEIGHTS, **more):
    """An entry of the zoo with a head."""
    card = tiny_card(name, head=Head(**{**HEAD, "sha256": weights.sha256, **more}))
    return zoo.publish_encoder(name, tiny_network(), card, head=weights)


def test_a_published_head_is_read_again():
    folder = publish()
    card = Card.read(folder / "card.yaml")
    assert card.head.thresholds == (0.25, 0.75)
    read = read_head(folder, card)
    assert torch.equal(read.weight, WEIGHTS.weight)
    assert torch.equal(read.bias, WEIGHTS.bias)
    assert publish() == folder  # again: the same encoder


def test_another_head_is_another_encoder():
    publish()
    with pytest.raises(InputError, match=r"another encoder called mine \(its head differ\)"):
        publish(temperature=2.0)
    with pytest.raises(ValueError, match="not that of the card"):
        zoo.publish_encoder("other", tiny_network(), tiny_card("other", head=Head(**HEAD, sha256="0" * 64)), head=WEIGHTS)
    with pytest.raises(ValueError, match="not that of the card"):
        zoo.publish_encoder("other", tiny_network(), tiny_card("other"), head=WEIGHTS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"thresholds": None}, "a multiclass head has none, the others have them"),
        ({"kind": "multiclass"}, "a multiclass head has none, the others have them"),
        ({"thresholds": (0.5,)}, "1 thresholds and 2 classes"),
        ({"thresholds": (0.5, 3.0)}, "expected probabilities"),
        ({"classes": ("mass", "mass")}, "expected different names"),
        ({"temperature": 0.0}, "greater than 0"),
        ({"sha256": "abc"}, "pattern"),
    ],
)
def test_a_head_that_contradicts_itself_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Head(**{**HEAD, "sha256": "0" * 64, **wrong})


def test_a_card_without_a_head_is_written_as_before():
    assert "head" not in tiny_card().to_yaml()


def test_an_exported_folder_keeps_the_head_and_a_file_says_that_it_does_not(tmp_path):
    publish()
    export_folder.export_folder("mine", tmp_path / "out")
    assert torch.equal(load_file(tmp_path / "out" / "head.safetensors")["weight"], WEIGHTS.weight)
    assert "multilabel task chest" in (tmp_path / "out" / "README.md").read_text()
    folder = pull_encoder(str(tmp_path / "out"), "pulled")
    card = Card.read(folder / "card.yaml")
    assert card.head == Card.read(zoo_dir() / "mine" / "card.yaml").head
    assert torch.equal(read_head(folder, card).weight, WEIGHTS.weight)
    assert register.export_encoder("mine", tmp_path / "alone.safetensors").startswith("# without the head of mine; export a folder")
    assert Card.read(tmp_path / "alone.yaml").head is None


def test_verify_checks_the_head():
    folder = publish()
    assert {check.name: check.passed for check in register.verify_encoder("mine")}["head"] is True
    data = (folder / "head.safetensors").read_bytes()
    (folder / "head.safetensors").write_bytes(data[:-1] + b"\x00")
    (head,) = [check for check in register.verify_encoder("mine") if check.name == "head"]
    assert not head.passed
    assert "changed or damaged" in head.detail


def test_a_head_of_another_width_is_refused():
    with pytest.raises(InputError, match="expected"):
        narrow = HeadWeights(torch.ones(2, 100), torch.zeros(2))
        folder = publish("narrow", narrow)
        read_head(folder, Card.read(folder / "card.yaml"))


def test_an_encoder_that_becomes_another_one_has_no_head():
    publish()
    zoo.publish_encoder("plain", tiny_network(1), tiny_card("plain"))
    assert zoo.find_encoder("mine:size=32").card.head is None
    assert zoo.find_encoder("mine~statistics=plain").card.head is None
    assert [part.head for part in zoo.find_encoder("mine+plain").card.parts] == [None, None]
    combine.combine_encoders(["mine", "plain"], "both")
    assert not (zoo_dir() / "both" / "head.safetensors").exists()
