"""A number takes no true or false and a switch no number, in files, on the command line and in names of encoders."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from encoders.runtime.config import Config, load_config, validate_config
from encoders.runtime.errors import InputError
from encoders.runtime.optim_config import Optim
from encoders.runtime.setting_kinds import find_wrong_kind, list_union_members
from encoders.zoo.card import Card, Preprocess
from encoders.zoo.zoo import load_encoder
from pretrain.methods import METHODS
from pretrain.recipe.config import Recipe, load_recipe
from transfer.protocols import PROTOCOLS
from transfer.tasks.task import Task, read_task


class Inner(Config):
    on: bool = True
    sides: tuple[float, ...] | None = None


class Every(Config):
    count: int = 1
    ratio: Annotated[float | None, Field(ge=0)] = None
    channels: Literal[1, 3] | None = None
    pair: tuple[float, float] = (0.9, 0.95)
    weights: dict[str, float] = Field({})
    shards: list[int | None] = Field([])
    on: bool | None = False
    off_or_count: bool | int = False
    switch: Literal["auto", True] = "auto"
    free: dict[str, Any] = Field({})
    inner: Inner = Inner()


@pytest.mark.parametrize("key", ["count", "ratio", "channels", "pair", "weights", "shards", "inner.sides"])
@pytest.mark.parametrize("value", ["true", "no", "False"])
def test_true_or_false_is_no_number(key, value, tmp_path):
    shaped = {"pair": f"[0.9, {value}]", "weights": f"{{a: 1.0, b: {value}}}", "shards": f"[null, {value}]", "inner.sides": f"[{value}]"}
    with pytest.raises(InputError, match=rf"^the command line: {key}: (b: )?expected a number, not true or false"):
        load_config(Every, None, [f"{key}={shaped.get(key, value)}"])
    (tmp_path / "a.yaml").write_text(f"inner: {{sides: {shaped[key]}}}" if "." in key else f"{key}: {shaped.get(key, value)}")
    with pytest.raises(InputError, match=rf"a\.yaml: {key}: (b: )?expected a number, not true or false"):
        load_config(Every, tmp_path / "a.yaml")


@pytest.mark.parametrize("key", ["on", "inner.on"])
@pytest.mark.parametrize("value", ["1", "0", "1.0", "'yes'", "'true'", "t"])
def test_a_number_or_a_word_is_not_true(key, value):
    with pytest.raises(InputError, match=rf"{key}: expected true or false \(given: "):
        load_config(Every, None, [f"{key}={value}"])


def test_what_a_setting_says_it_takes_is_read_as_it_is_written():
    given = {
        "count": 3, "ratio": 1, "channels": 3, "pair": [1, 0.5], "weights": {"a": 2}, "shards": [None, 4], "on": None, "off_or_count": 7,
        "switch": True, "free": {"x": True, "y": 1}, "inner": {"on": False, "sides": [1, 2]},
    }  # fmt: skip
    read = validate_config(Every, given, "a test")
    assert read.off_or_count == 7
    assert type(read.off_or_count) is int
    assert validate_config(Every, {"off_or_count": True}, "a test").off_or_count is True
    assert read.switch is True
    assert read.inner == Inner(on=False, sides=(1.0, 2.0))
    assert validate_config(Every, {"on": True, "ratio": None}, "a test").on is True
    assert validate_config(Every, read.model_dump(mode="json"), "a test") == read


def list_configs(kind: type[Config], seen: set[type[Config]]) -> Iterator[type[Config]]:
    """A model, and those inside it."""
    if kind not in seen:
        seen.add(kind)
        yield kind
        for field in kind.model_fields.values():
            for member in list_union_members(field.annotation):
                if isinstance(member, type) and issubclass(member, Config):
                    yield from list_configs(member, seen)


def test_every_number_of_every_file_and_every_switch_is_checked():
    named = [method.Config for method in METHODS.values()] + [entry.load().Config for entry in PROTOCOLS.values()]
    tops = [Recipe, Card, Task, Optim, Preprocess, *named]
    seen: set[type[Config]] = set()
    numbers, switches = 0, 0
    for kind in (inner for top in tops for inner in list_configs(top, seen)):
        for name, field in kind.model_fields.items():
            members = list_union_members(field.annotation)
            takes_number, takes_bool = bool({int, float} & set(members)), bool in members
            if takes_number != takes_bool:
                with pytest.raises(ValidationError) as wrong:
                    kind.model_validate({name: takes_number or 1})
                faults = {fault["loc"]: fault["msg"] for fault in wrong.value.errors()}
                assert faults[name,].endswith("expected a number, not true or false" if takes_number else "expected true or false")
                numbers, switches = numbers + takes_number, switches + takes_bool
    assert numbers > 150
    assert switches > 15


def test_recipes_tasks_cards_and_names_are_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOGRAFT_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"data\.workers: expected a number, not true or false \(given: False\)"):
        load_recipe("cxr_moco_tiny", ["data.workers=false"])
    with pytest.raises(InputError, match=r"compile: expected true or false \(given: 1\)"):
        load_recipe("cxr_moco_tiny", ["compile=1"])
    with pytest.raises(InputError, match="size: expected a number, not true or false"):
        load_encoder("random_resnet10t:size=true")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "t.yaml").write_text(
        "store: [a.h5]\nlabels: [y]\nkind: binary\nsplit: {column: split, names: {train: train, test: test}, val: true}\n"
    )
    with pytest.raises(InputError, match=r"t\.yaml: .*split\.val: expected a number, not true or false"):
        read_task("t")
    (tmp_path / "card.yaml").write_text("name: a\narch: resnet10t\ndim: true\npreprocess: {size: 32}\n")
    with pytest.raises(InputError, match=r"card\.yaml: .*dim: expected a number, not true or false"):
        Card.read(tmp_path / "card.yaml")


@pytest.mark.parametrize(("kind", "value"), [(str, True), (list[str], [True]), (None, 1), (int, "4"), (dict[str, int], [True, "a"][1])])
def test_other_kinds_are_left_to_the_model(kind, value):
    assert find_wrong_kind(kind, value) == ""
