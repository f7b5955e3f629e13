"""The trials of a search of fine-tuning: which settings of the space have an effect, and the settings of each trial."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from encoders.runtime.config import merge_settings, validate_config
from encoders.runtime.errors import InputError
from encoders.runtime.json_types import Json
from transfer.losses.settings import IMBALANCE_GROUPS
from transfer.search.draws import Settings, draw_trials
from transfer.search.space import SearchParameter
from transfer.strategies.names import GROUPS, STRATEGIES


def list_own_parameters(strategy: str, imbalance: str, space: list[SearchParameter]) -> list[SearchParameter]:
    """The parameters without those of other strategies and approaches to imbalance, which would have no effect."""
    unused = {*GROUPS, *IMBALANCE_GROUPS} - {*STRATEGIES[strategy].groups, imbalance}
    unused |= set() if imbalance == "class_weight" else {"class_weight"}
    return [parameter for parameter in space if parameter.setting.partition(".")[0] not in unused]


def is_integer(kind: type[BaseModel], setting: str) -> bool:
    """Whether a dotted setting takes whole numbers only."""
    *groups, name = setting.split(".")
    for group in groups:
        field = kind.model_fields.get(group)
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return False
        kind = field.annotation
    return name in kind.model_fields and kind.model_fields[name].annotation is int


def with_settings(kind: type[BaseModel], base: Mapping[str, Any], settings: Mapping[str, Json]) -> dict[str, Any]:
    """The settings of a trial, validated. base: dumped.  settings: dotted.

    Raises InputError that names a setting which is unknown, or a value which it does not take."""
    trees = [nest_setting(setting, value) for setting, value in settings.items()]
    raw = merge_settings({key: value for key, value in base.items() if key != "search"}, *trees)
    validate_config(kind, raw, f"--search, with {', '.join(f'{name}={value}' for name, value in settings.items()) or 'no setting changed'}")
    return raw


def nest_setting(setting: str, value: Json) -> dict[str, Any]:
    """`a.b` as {"a": {"b": value}}."""
    tree: Any = value
    for part in reversed(setting.split(".")):
        tree = {part: tree}
    return dict(tree)


def check_ends(kind: type[BaseModel], base: Mapping[str, Any], space: list[SearchParameter]) -> None:
    """Raises InputError for a parameter that is no setting, and for an end of a range, or a choice, that it does not take."""
    for parameter in space:
        integer = is_integer(kind, parameter.setting)
        values = parameter.choices or (parameter.value(0.0, integer), parameter.value(1 - 1e-12, integer))
        for value in values:
            raw = with_settings(kind, base, {parameter.setting: value})
            if parameter.setting.startswith("augment."):
                check_augmentation(parameter.setting, raw["augment"])


def check_augmentation(setting: str, raw: dict[str, Any]) -> None:
    """Raises InputError for a knob that is unknown, for a value it does not take, and for the strength of operations that are off."""
    from encoders.augment.presets import resolve_augment  # imports torch

    own = {**raw, "preset": "none"} if raw.get("preset", "auto") == "auto" else raw
    if setting == "augment.randaugment_strength" and not resolve_augment(own, "--search", "augment").randaugment:
        raise InputError(
            "--search augment_strength has no effect: RandAugment is off; turn it on with finetune.augment.preset=randaugment_cxr, or the "
            "preset of another modality"
        )
    resolve_augment(own, "--search", "augment")


def draw_settings(kind: type[BaseModel], space: list[SearchParameter], trials: int, seed: int) -> list[Settings]:
    """The settings of each trial that differ from those given; the first has none."""
    return draw_trials(space, trials, seed, [parameter.setting for parameter in space if is_integer(kind, parameter.setting)])
