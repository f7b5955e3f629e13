"""A task from a store, a recipe, and what the command line says; the command line wins."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from encoders.runtime.config import merged, validated
from encoders.runtime.errors import InputError
from transfer import data, recipes
from transfer import task as tasks
from transfer.labels import Targets

TARGET = tuple(tasks.Target.model_fields)


def task_from(name: str, stores: Sequence[str], opened: Any, given: Mapping[str, Any], recipe: str | None) -> tuple[tasks.Task, Targets]:
    """The task and its target. given: fields of the target, and `split`, of a task; only those that the user named.

    Raises InputError for labels, a policy or a split that the store does not have."""
    known = recipes.load(recipe) if recipe else None
    base = {} if known is None else known.model_dump(mode="json", include={*TARGET}, exclude_defaults=True)
    wish = merged(base, {k: v for k, v in given.items() if k in TARGET})
    if not wish.get("labels"):
        raise InputError("no label column was given; name one with --label COLUMN, or a known data set with --recipe")
    wish["labels"] = every_label(opened) if wish["labels"] == ["*"] else wish["labels"]
    reading = validated(tasks.Target, wish, "the target")
    target = data.read_targets(opened, reading)
    rule = split_of(opened, stores, given.get("split", {}), known)
    made = tasks.Task(
        **{**reading.model_dump(), "kind": target.kind},
        name=name,
        store=[tasks.portable(s) for s in stores],
        classes=target.classes,
        split=rule,
        modality=opened.modality,
        recipe=None if recipe is None else tasks.portable(recipe) if recipe.endswith((".yaml", ".yml")) else recipe,
    )
    return made, target


def every_label(store: Any) -> list[str]:
    """All labels of a store, for a recipe that fits many sets. Raises InputError when it has none."""
    names = list(store.label_names())
    if not names:
        raise InputError(f"{store.paths[0]} was ingested without labels; ingest it again with them, or bring a CSV with --labels")
    return names


def split_of(store: Any, stores: Sequence[str], given: Mapping[str, Any], known: recipes.Recipe | None) -> tasks.Rule:
    """The split: as named, else the recipe's, else the store's official one, else an own one by patient."""
    named = "column" in given or "lists" in given
    base: dict[str, Any] = {}
    if known is not None and known.split is not None and not named:
        base = known.split.model_dump(mode="json")
        base["lists"] = {part: found(path, stores) for part, path in known.split.lists.items()}
    elif not named and (column := data.default_column(store)) is not None:
        base = {"column": column}
    rule = validated(tasks.Rule, merged(base, {k: None if v == "none" else v for k, v in given.items()}), "the split")
    if rule.source is None and rule.patients_by_split:
        raise InputError("--patients-by-split is about an official split; name its column with --split-column")
    return rule


def found(name: str, stores: Sequence[str]) -> str:
    """A file that a recipe names, in the working folder or beside the store. Raises InputError when it is in neither."""
    for folder in (Path(), *(Path(s).parent for s in stores)):
        if (folder / name).is_file():
            return tasks.portable(folder / name)
    raise InputError(
        f"the official list {name} is neither here nor beside the store; copy it from the data set, or give --split-list PART=FILE"
    )
