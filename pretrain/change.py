"""Settings that are changed in the middle of a run: only when that is meant, and written down.

What decides the weights needs `--allow-change`; what only decides speed or what is kept does not. What a checkpoint is made of
cannot change.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from encoders.runtime import dist
from encoders.runtime.config import digest, merged, parse_override, validated
from encoders.runtime.errors import InputError
from pretrain import config
from pretrain.config import Recipe
from pretrain.rundir import RunDir
from pretrain.setup import Setup, portable

FIXED = ("arch", "model_args", "channels", "init", "seed", "method.name", "optim.kind", "preprocess.mean", "preprocess.std")


class Change(NamedTuple):
    """One setting that is no longer what it was."""

    key: str
    before: Any
    after: Any


def changed(run: RunDir, recipe: Recipe, overrides: Sequence[str], allowed: bool) -> tuple[Recipe, list[Change]]:
    """The recipe with the overrides, and what they change. Raises InputError for what cannot change, or was not allowed to."""
    if not overrides:
        return recipe, []
    where = f"{run.config} with {' '.join(overrides)}"
    given = [parse_override(one) for one in overrides]
    new = config.resolved(validated(Recipe, merged(recipe.model_dump(mode="json"), *given), where), where)
    found = differences(recipe.model_dump(mode="json"), new.model_dump(mode="json"))
    if stuck := [c.key for c in found if c.key.startswith(FIXED)]:
        raise InputError(f"{', '.join(stuck)}: a checkpoint of run {run.name!r} does not fit that; start another run with --name")
    if found and run.read()["status"] == "finished":
        raise InputError(f"run {run.name!r} is finished and its encoder published; go on from that in another run, with init={run.name}")
    if found and config.identity(new) != config.identity(recipe) and not allowed:
        told = "; ".join(f"{c.key} from {c.before} to {c.after}" for c in found)
        raise InputError(f"{told}: run {run.name!r} would no longer be the run that was begun; add --allow-change if that is meant")
    return new, found


def differences(a: Mapping[str, Any], b: Mapping[str, Any], within: str = "") -> list[Change]:
    """Every leaf in which two trees differ."""
    found = []
    for key in {**a, **b}:
        one, two = a.get(key), b.get(key)
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            found += differences(one, two, f"{within}{key}.")
        elif one != two:
            found.append(Change(within + key, one, two))
    return found


def written_down(run: RunDir, made: Setup, changes: Sequence[Change], step: int) -> None:
    """The changes in run.json and on the card, and config.yaml as it is from now on."""
    told = list(run.read().get("changes", []))
    new = [{"step": step, "key": c.key, "from": c.before, "to": c.after} for c in changes]
    told += [one for one in new if one not in told]  # once, also when a kill came between the two files
    made.card = made.card.changed(config=portable(made.recipe), lineage=made.card.lineage | {"changes": told})
    if dist.is_main():
        config.write(run.config, made.recipe)
        run.update(changes=told, settings=digest_of(made.recipe), steps=made.steps, warmup=made.warmup)


def digest_of(recipe: Recipe) -> str:
    """Of every setting in config.yaml."""
    return digest(recipe)


def untouched(run: RunDir, recipe: Recipe) -> None:
    """Raises InputError when config.yaml was edited since it was written."""
    if run.read().get("settings", digest_of(recipe)) != digest_of(recipe):
        raise InputError(
            f"{run.config} was edited: undo that, and give what you want changed as `pretrain resume {run.name} key=value --allow-change`, "
            f"which is written down"
        )
