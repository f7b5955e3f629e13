"""The lineage of an encoder over several stages of training."""

import pytest

from encoders.runtime.errors import InputError
from encoders.runtime.paths import zoo_dir
from encoders.zoo import lineage, zoo
from encoders.zoo.card import Card, Preprocess


def add_entry(name: str, init: str | None, steps: int = 10) -> None:
    """An entry of the zoo with a card only."""
    folder = zoo_dir() / name
    folder.mkdir(parents=True)
    card = Card(name=name, arch="resnet10t", dim=512, preprocess=Preprocess(size=32, channels=1, mean=[0.5], std=[0.25]), method="moco",
                steps=steps, lineage={"init": init})  # fmt: skip
    (folder / "card.yaml").write_text(card.to_yaml())


def test_the_lineage_lists_every_stage_down_to_the_random_weights():
    add_entry("first", "random:3", steps=40)
    add_entry("second", "first")
    add_entry("third", "second")
    assert [name for name, _ in lineage.lineage_chain("third")] == ["third", "second", "first"]
    assert (
        lineage.describe_lineage("third")
        == "third (moco, 10 steps) <- second (moco, 10 steps) <- first (moco, 40 steps) <- random weights, seed 3"
    )


def test_a_removed_encoder_is_named_and_ends_the_chain():
    add_entry("orphan", "gone")
    assert lineage.describe_lineage("orphan") == "orphan (moco, 10 steps) <- gone (not available locally)"
    assert list(lineage.lineage_chain("orphan"))[1] == ("gone", None)


def test_a_cycle_ends_and_a_wrong_name_is_an_error():
    add_entry("a", "b")
    add_entry("b", "a")
    assert [name for name, _ in lineage.lineage_chain("a")] == ["a", "b"]
    with pytest.raises(InputError):
        list(lineage.lineage_chain("nobody"))


def test_built_in_weights_have_no_parent():
    assert lineage.describe_lineage("random_resnet10t") == "random_resnet10t"
    assert zoo.find_encoder("random_resnet10t").card.lineage["init"] is None
