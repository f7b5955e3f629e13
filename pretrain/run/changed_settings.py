"""Settings that change when a run is resumed.

A setting that decides the weights changes only with `--allow-change`; one that decides speed or what is recorded changes freely. All
changes are recorded. Settings that the checkpoints depend on cannot change.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from encoders.runtime import dist
from encoders.runtime.config import json_digest, merge_settings, parse_override, validate_config
from encoders.runtime.errors import InputError
from encoders.runtime.json_types import Json
from pretrain.loop.initial_card import recipe_without_folders
from pretrain.loop.setup import Setup
from pretrain.recipe import config
from pretrain.recipe.config import Recipe
from pretrain.recipe.identity_marks import list_defaulted_fields
from pretrain.run.run_info import ChangeInfo
from pretrain.run.rundir import RunDir

# Settings that cannot change, with all settings below them.
FIXED_SETTINGS = (
    "arch", "model_args", "channels", "channels_last", "init", "seed", "method.name", "optim.kind", "preprocess",
    "layer_decay", "head_warmup_steps", "ema", "anchor.l2_sp",
    "auxiliary", "data.label_keys", "method.label",
)  # fmt: skip


class SettingChange(NamedTuple):
    """A setting with two different values."""

    key: str
    before: Json
    after: Json


def apply_overrides(run: RunDir, recipe: Recipe, overrides: Sequence[str], allow_change: bool) -> tuple[Recipe, list[SettingChange]]:
    """The recipe with the overrides, and what they change.

    Raises InputError for a setting that cannot change, or that decides the weights without `allow_change`."""
    if not overrides:
        return recipe, []
    source = f"{run.config} with {' '.join(overrides)}"
    settings = recipe.model_dump(mode="json")
    raw = merge_settings(settings, *(parse_override(text) for text in overrides))
    new = config.resolve_recipe(validate_config(Recipe, raw, source), source)
    changes = diff_settings(settings, new.model_dump(mode="json"))
    if fixed := [c.key for c in changes if is_fixed_setting(c.key)]:
        raise InputError(
            f"{', '.join(fixed)} cannot change: the checkpoints of run {run.name!r} depend on it; start another run with --name"
        )
    if changes and run.read()["status"] == "finished":
        raise InputError(
            f"run {run.name!r} is finished and its encoder published; to train it further, start another run with init={run.name}"
        )
    if changes and config.recipe_identity(new) != config.recipe_identity(recipe) and not allow_change:
        listed = "; ".join(f"{c.key} from {c.before} to {c.after}" for c in changes)
        raise InputError(f"{listed}: this changes what decides the weights of run {run.name!r}; add --allow-change to do it anyway")
    return new, changes


def is_fixed_setting(key: str) -> bool:
    """Whether `key` is one of FIXED_SETTINGS or below one of them."""
    return any(key == fixed or key.startswith(f"{fixed}.") for fixed in FIXED_SETTINGS)


def diff_settings(a: Mapping[str, Json], b: Mapping[str, Json], prefix: str = "") -> list[SettingChange]:
    """Every leaf in which two trees of settings differ; `prefix` stands before its key."""
    changes = []
    for key in {**a, **b}:
        before, after = a.get(key), b.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changes += diff_settings(before, after, f"{prefix}{key}.")
        elif before != after:
            changes.append(SettingChange(prefix + key, before, after))
    return changes


def record_changes(run: RunDir, setup: Setup, changes: Sequence[SettingChange], step: int) -> None:
    """Writes the changes to run.json and the card, and the new settings to config.yaml."""
    recorded = list(run.read().get("changes", []))
    new: list[ChangeInfo] = [{"step": step, "key": c.key, "from": c.before, "to": c.after} for c in changes]
    recorded += [change for change in new if change not in recorded]  # once, also after a kill between the two files
    setup.card = setup.card.replace(config=recipe_without_folders(setup.recipe), lineage=setup.card.lineage | {"changes": recorded})
    if dist.is_main():
        config.write_recipe(run.config, setup.recipe)
        run.update(changes=recorded, settings=settings_digest(setup.recipe), steps=setup.steps, warmup=setup.warmup)


def settings_digest(recipe: Recipe) -> str:
    """A digest of all settings in config.yaml."""
    return json_digest(recipe.model_dump(mode="json", exclude=list_defaulted_fields(recipe)))


def require_unedited_config(run: RunDir, recipe: Recipe) -> None:
    """Raises InputError when config.yaml was edited after the run wrote it."""
    if run.read().get("settings", settings_digest(recipe)) != settings_digest(recipe):
        raise InputError(
            f"{run.config} was edited: undo the edit, and pass the change as `pretrain resume {run.name} key=value --allow-change`, "
            f"which records it"
        )
