"""Removing encoders: what refers to them, and what is kept."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from encoders.cli.main import app
from encoders.runtime.errors import InputError
from encoders.runtime.paths import records_dir, runs_dir, zoo_dir
from encoders.zoo import lineage, removal, zoo
from encoders.zoo.location import find_manifest
from tests.encoders.zoo.small import tiny_card, tiny_network


def publish(name: str = "mine", **card) -> None:
    zoo.publish_encoder(name, tiny_network(), tiny_card(name, **card), {"patient_hash": np.array(["a", "b"])})


def add_record(encoder: str) -> None:
    folder = records_dir() / "pneumonia"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"r{len(list(folder.iterdir()))}.json").write_text(json.dumps({"identity": {"encoder": encoder}}))


def add_run(name: str, init: str) -> None:
    (runs_dir() / name).mkdir(parents=True)
    (runs_dir() / name / "config.yaml").write_text(f"init: {init}\narch: resnet10t\n")


def test_an_encoder_that_nothing_refers_to_is_removed_whole():
    publish()
    publish("other", lineage={"note": "mine"})
    size = sum(path.stat().st_size for path in (zoo_dir() / "mine").iterdir())
    removed = removal.remove_encoder("mine")
    assert (removed.freed_bytes, removed.kept, removed.references) == (size, None, [])
    assert sorted(path.name for path in zoo_dir().iterdir()) == ["other"]
    with pytest.raises(InputError, match="no encoder called 'mine'"):
        zoo.find_encoder("mine")


@pytest.mark.parametrize(
    "encoder",
    ["mine", "mine:size=32", "mine+imagenet_resnet18", "a~statistics=mine", "mine:stages=2/3", "zoo/mine", "zoo/mine/card.yaml"],
)
def test_a_record_of_the_encoder_in_any_spelling_keeps_it(encoder):
    publish()
    add_record(encoder)
    with pytest.raises(InputError, match=r"1 record refers to it \(pneumonia/r0.json\); --force removes it"):
        removal.remove_encoder("mine")
    assert (zoo_dir() / "mine" / "model.safetensors").is_file()


@pytest.mark.parametrize("encoder", ["mine2", "imagenet_mine", "runs/mine", "a+mine_b", "other/mine"])
def test_similar_names_are_other_encoders(encoder):
    assert not removal.mentions_encoder(encoder, "mine")


def test_runs_and_encoders_that_started_from_it_are_counted():
    publish()
    publish("child", lineage={"init": "mine"})
    for i in range(5):
        add_run(f"r{i}", "mine")
    add_run("unrelated", "null")
    with pytest.raises(InputError, match=r"5 runs refer to it \(runs/r0, runs/r1, runs/r2 and 2 more\); 1 encoder refers to it \(child\)"):
        removal.remove_encoder("mine")


def test_force_keeps_card_and_manifest_for_lineage_and_leaks():
    publish(method="moco", steps=7, lineage={"init": "random:3"})
    publish("child", lineage={"init": "mine"}, method="moco", steps=9)
    before = zoo.find_encoder("mine").card
    kept = removal.remove_encoder("mine", force=True).kept
    assert kept is not None
    assert sorted(path.name for path in kept.iterdir()) == ["card.yaml", "manifest.npz"]
    assert lineage.describe_lineage("child") == "child (moco, 9 steps) <- mine (moco, 7 steps) <- random weights, seed 3"
    parent = list(lineage.lineage_chain("child"))[1][1]
    assert parent is not None
    assert parent.card == before
    assert find_manifest(parent) == kept / "manifest.npz"


def test_a_file_that_cannot_be_read_may_refer_to_it():
    publish()
    add_record("other")
    (records_dir() / "pneumonia" / "torn.json").write_text('{"identity": {"enc')
    with pytest.raises(InputError, match=r"1 file that may refer to it cannot be read \(.*torn.json\)"):
        removal.remove_encoder("mine")
    assert removal.remove_encoder("mine", force=True).kept


def test_only_entries_of_the_zoo_are_removed():
    publish()
    add_run("mine", "null")
    wrong = {"runs/mine": "is a run", "mime": "did you mean mine", "imagenet_resnet18": "no entry of the zoo", "../zoo/mine": "no entry"}
    for name, message in wrong.items():
        with pytest.raises(InputError, match=message):
            removal.remove_encoder(name, force=True)
    assert (zoo_dir() / "mine").is_dir()


def test_the_command_says_what_is_kept():
    publish()
    add_record("mine")
    add_run("r", "mine")
    done = CliRunner().invoke(app, ["remove", "mine", "--force"])
    assert done.exit_code == 0, done.output
    assert "because of 1 run, 1 record" in done.output
