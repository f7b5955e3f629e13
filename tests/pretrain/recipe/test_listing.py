"""What `pretrain methods` and `pretrain settings` print is what the code says; the file is written by `make tables`."""

import json

from pretrain.methods import METHODS
from pretrain.recipe import listing
from pretrain.recipe.config import Recipe


def test_the_file_is_that_of_the_code():
    assert listing.LISTING.read_text(encoding="utf-8") == listing.format_listing(listing.build_listing())


def test_the_file_names_every_method_with_all_its_settings_and_every_setting_of_a_recipe():
    read = json.loads(listing.LISTING.read_text(encoding="utf-8"))
    for name, method in METHODS.items():
        assert [row[0] for row in read["methods"][name]["settings"]] == [f"method.{key}" for key in method.Config.model_fields]
    assert read["methods"].keys() == METHODS.keys()
    listed = {row[0].partition(".")[0] for row in read["settings"]}
    assert set(Recipe.model_fields) - {"preprocess", "data", "optim", "watch", "ddp", "anchor"} <= listed
    assert {"augment", "auxiliary"} <= listed


def test_a_method_that_a_program_added_is_listed(monkeypatch):
    monkeypatch.setitem(METHODS, "own", METHODS["simclr"])
    assert listing.read_listing()["methods"]["own"] == listing.read_listing()["methods"]["simclr"]
