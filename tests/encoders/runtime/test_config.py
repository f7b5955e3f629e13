"""Configuration: precedence, and errors that name the key and the nearest known one."""

from typing import Any

import pytest
from pydantic import Field

from encoders.runtime.config import Config, json_digest, load_config, merge_settings, parse_override, to_yaml
from encoders.runtime.errors import InputError, unknown_name_error


class Optim(Config):
    lr: float = Field(0.03, gt=0, description="at batch 256")
    momentum: float = 0.9


class Recipe(Config):
    store: str
    steps: int = 10
    optim: Optim = Optim()
    more: dict[str, Any] = Field({})


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("store: a.h5\nsteps: 20\noptim: {lr: 0.1}\n")
    cfg = load_config(Recipe, path, ["optim.lr=1e-4"])
    assert (cfg.store, cfg.steps, cfg.optim.lr, cfg.optim.momentum) == ("a.h5", 20, 1e-4, 0.9)


def test_yaml_reads_1e_4_as_text_and_the_model_makes_it_a_number():
    assert parse_override("lr=1e-4") == {"lr": "1e-4"}
    assert Optim(lr="1e-4").lr == 1e-4


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stps=3", ["stps", "did you mean steps?"]),
        ("optim.momentun=0", ["optim.momentun", "did you mean momentum?"]),
        ("steps=many", ["steps", "integer", "'many'"]),
        ("optim.lr=-1", ["optim.lr", "greater than 0"]),
        ("optim.lr=.inf", ["optim.lr", "expected a finite number (given: inf)"]),
        ("more.scale=[1, -.inf]", ["more.scale.1", "expected a finite number (given: -inf)"]),
        ("steps", ["key=value"]),
    ],
)
def test_a_wrong_override_is_explained(override, words):
    with pytest.raises(InputError) as wrong:
        load_config(Recipe, None, ["store=a.h5", override])
    assert all(word in str(wrong.value) for word in words), str(wrong.value)


def test_a_missing_key_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(InputError, match="store: is required"):
        load_config(Recipe)
    with pytest.raises(InputError, match="none.yaml"):
        load_config(Recipe, tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(InputError, match="expected `key: value`"):
        load_config(Recipe, tmp_path / "list.yaml")


def test_the_written_configuration_reads_back_equal(tmp_path):
    cfg = Recipe(store="x.h5", optim=Optim(lr=3e-5))
    (tmp_path / "config.yaml").write_text(to_yaml(cfg))
    assert load_config(Recipe, tmp_path / "config.yaml") == cfg


def test_merging_keeps_what_is_not_overridden():
    assert merge_settings({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}


def test_an_empty_group_clears_what_was_set_before():
    assert merge_settings({"a": {"b": 1}, "d": 2}, {"a": {}}) == {"a": {}, "d": 2}
    assert merge_settings({"a": {"b": 1}}, {"a": {}}, {"a": {"c": 2}}) == {"a": {"c": 2}}


def test_a_digest_ignores_key_order_and_sees_every_value():
    assert json_digest({"a": 1, "b": 2}) == json_digest({"b": 2, "a": 1})
    assert json_digest({"a": 1}) != json_digest({"a": 2})


def test_an_unknown_name_names_the_nearest():
    assert "did you mean cxr_moco?" in str(unknown_name_error("encoder", "cxr_mocov2", ["cxr_moco", "path_mae"]))
    assert "known: a, b" in str(unknown_name_error("encoder", "zzz", ["b", "a"]))


class Rate(Config):
    rate: float = 1.0
    rule: str = "linear"


class Training(Config):
    optim: Rate = Rate(rule="none")


def test_settings_of_a_group_that_are_not_given_are_those_of_its_default_in_this_place():
    assert load_config(Training, None, ["optim.rate=2"]).optim == Rate(rate=2.0, rule="none")
    assert load_config(Training, None, ["optim.rule=sqrt"]).optim == Rate(rate=1.0, rule="sqrt")
    with pytest.raises(InputError, match="optim.ruel: unknown key; did you mean rule"):
        load_config(Training, None, ["optim.ruel=sqrt"])
