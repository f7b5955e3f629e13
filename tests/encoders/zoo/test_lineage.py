"""Where an encoder comes from, over several stages of training."""

import pytest

from encoders.runtime.errors import InputError
from encoders.runtime.paths import zoo_dir
from encoders.zoo import lineage, zoo
from encoders.zoo.card import Card, Preprocess


def kept(name: str, init: str | None, steps: int = 10) -> None:
    """An entry of the zoo; only its card matters here."""
    folder = zoo_dir() / name
    folder.mkdir(parents=True)
    card = Card(name=name, arch="resnet10t", dim=512, preprocess=Preprocess(size=32, channels=1, mean=[0.5], std=[0.25]), method="moco",
                steps=steps, lineage={"init": init})  # fmt: skip
    (folder / "card.yaml").write_text(card.text())


def test_every_stage_is_told_down_to_the_random_weights():
    kept("first", "random:3", steps=40)
    kept("second", "first")
    kept("third", "second")
    assert [name for name, _ in lineage.lineage_chain("third")] == ["third", "second", "first"]
    assert (
        lineage.describe_lineage("third")
        == "third (moco, 10 steps) <- second (moco, 10 steps) <- first (moco, 40 steps) <- random weights, seed 3"
    )


def test_a_start_that_is_gone_is_named_and_ends_the_chain():
    kept("orphan", "gone")
    assert lineage.describe_lineage("orphan") == "orphan (moco, 10 steps) <- gone (no longer here)"
    assert list(lineage.lineage_chain("orphan"))[1] == ("gone", None)


def test_a_circle_ends_and_a_wrong_name_is_an_error():
    kept("a", "b")
    kept("b", "a")
    assert [name for name, _ in lineage.lineage_chain("a")] == ["a", "b"]
    with pytest.raises(InputError):
        list(lineage.lineage_chain("nobody"))


def test_built_in_weights_have_no_start():
    assert lineage.describe_lineage("random_resnet10t") == "random_resnet10t"
    assert zoo.find_encoder("random_resnet10t").card.lineage["init"] is None
