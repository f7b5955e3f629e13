"""`encoders list`: every folder of the zoo and of the runs has a row, whatever its name is."""

import pytest

from encoders.runtime.paths import home_dir
from encoders.zoo.card import Card, Preprocess
from encoders.zoo.listing import list_encoders


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOGRAFT_HOME", str(tmp_path))


def test_entries_with_invalid_names_are_flagged_and_the_others_are_listed():
    card = Card(name="a", arch="resnet10t", dim=512, preprocess=Preprocess(size=32, channels=1, mean=(0.5,), std=(0.25,)))
    for folder in ("zoo/good", "zoo/-rf", "zoo/a b", "zoo/\x1b[2J", "zoo/con", "runs/a b/encoder", "runs/a,b/encoder", "zoo/.unfinished"):
        (home_dir() / folder).mkdir(parents=True)
        card.write(home_dir() / folder / "card.yaml")
    rows = {row.name: row.where for row in list_encoders() if row.where not in ("drawn", "no", "none needed", "hub cache")}
    assert rows == {
        "good": "no: model.safetensors is missing",
        "'-rf'": "invalid name (it begins with '-'): rename its folder",
        "'a b'": "invalid name (it has the character ' '): rename its folder",
        "'\\u001b[2J'": "invalid name (it has the invisible character U+001B): rename its folder",
        "'con'": "invalid name (Windows reserves it): rename its folder",
        "runs/a b": "no: model.safetensors is missing",
        "'runs/a,b'": "invalid name (it has the character ','): rename its folder",
    }
