"""Settings that are changed in the middle of a run: only when that is meant, and written down.

What decides the weights needs `--allow-change`; what only decides speed or what is kept does not. What a checkpoint is made of
cannot change.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from encoders.runtime import dist
from encoders.runtime.config import json_digest, merge_settings, parse_override, validate_config
from encoders.runtime.errors import InputError
from pretrain.loop.setup import Setup, recipe_without_folders
from pretrain.recipe import config
from pretrain.recipe.config import Recipe
from pretrain.run.rundir import RunDir

FIXED_SETTINGS = ("arch", "model_args", "channels", "init", "seed", "method.name", "optim.kind", "preprocess.mean", "preprocess.std")


class SettingChange(NamedTuple):
    """One setting that is no longer what it was."""

    key: str
    before: Any
    after: Any


def apply_overrides(run: RunDir, recipe: Recipe, overrides: Sequence[str], allowed: bool) -> tuple[Recipe, list[SettingChange]]:
    """The recipe with the overrides, and what they change. Raises InputError for what cannot change, or was not allowed to."""
    if not overrides:
        return recipe, []
    where = f"{run.config} with {' '.join(overrides)}"
    given = [parse_override(one) for one in overrides]
    new = config.resolve_recipe(validate_config(Recipe, merge_settings(recipe.model_dump(mode="json"), *given), where), where)
    found = diff_settings(recipe.model_dump(mode="json"), new.model_dump(mode="json"))
    if stuck := [c.key for c in found if c.key.startswith(FIXED_SETTINGS)]:
        raise InputError(f"{', '.join(stuck)}: a checkpoint of run {run.name!r} does not fit that; start another run with --name")
    if found and run.read()["status"] == "finished":
        raise InputError(f"run {run.name!r} is finished and its encoder published; go on from that in another run, with init={run.name}")
    if found and config.recipe_identity(new) != config.recipe_identity(recipe) and not allowed:
        told = "; ".join(f"{c.key} from {c.before} to {c.after}" for c in found)
        raise InputError(f"{told}: run {run.name!r} would no longer be the run that was begun; add --allow-change if that is meant")
    return new, found


def diff_settings(a: Mapping[str, Any], b: Mapping[str, Any], within: str = "") -> list[SettingChange]:
    """Every leaf in which two trees differ."""
    found = []
    for key in {**a, **b}:
        one, two = a.get(key), b.get(key)
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            found += diff_settings(one, two, f"{within}{key}.")
        elif one != two:
            found.append(SettingChange(within + key, one, two))
    return found


def record_changes(run: RunDir, made: Setup, changes: Sequence[SettingChange], step: int) -> None:
    """The changes in run.json and on the card, and config.yaml as it is from now on."""
    told = list(run.read().get("changes", []))
    new = [{"step": step, "key": c.key, "from": c.before, "to": c.after} for c in changes]
    told += [one for one in new if one not in told]  # once, also when a kill came between the two files
    made.card = made.card.changed(config=recipe_without_folders(made.recipe), lineage=made.card.lineage | {"changes": told})
    if dist.is_main():
        config.write_recipe(run.config, made.recipe)
        run.update(changes=told, settings=settings_digest(made.recipe), steps=made.steps, warmup=made.warmup)


def settings_digest(recipe: Recipe) -> str:
    """Of every setting in config.yaml."""
    return json_digest(recipe)


def require_unedited_config(run: RunDir, recipe: Recipe) -> None:
    """Raises InputError when config.yaml was edited since it was written."""
    if run.read().get("settings", settings_digest(recipe)) != settings_digest(recipe):
        raise InputError(
            f"{run.config} was edited: undo that, and give what you want changed as `pretrain resume {run.name} key=value --allow-change`, "
            f"which is written down"
        )
