"""A task from a store, a recipe, and what the command line says; the command line wins."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from encoders.runtime.config import merge_settings, validate_config
from encoders.runtime.errors import InputError
from transfer.tasks import load, recipes
from transfer.tasks import task as tasks
from transfer.tasks.labels import Targets

TARGET_FIELDS = tuple(tasks.TargetSpec.model_fields)


def build_task(name: str, stores: Sequence[str], opened: Any, given: Mapping[str, Any], recipe: str | None) -> tuple[tasks.Task, Targets]:
    """The task and its target. given: fields of the target, and `split`, of a task; only those that the user named.

    Raises InputError for labels, a policy or a split that the store does not have."""
    known = recipes.load_recipe(recipe) if recipe else None
    base = {} if known is None else known.model_dump(mode="json", include={*TARGET_FIELDS}, exclude_defaults=True)
    wish = merge_settings(base, {k: v for k, v in given.items() if k in TARGET_FIELDS})
    if not wish.get("labels"):
        raise InputError("no label column was given; name one with --label COLUMN, or a known data set with --recipe")
    wish["labels"] = list_store_labels(opened) if wish["labels"] == ["*"] else wish["labels"]
    reading = validate_config(tasks.TargetSpec, wish, "the target")
    target = load.read_targets(opened, reading)
    rule = choose_split_rule(opened, stores, given.get("split", {}), known)
    made = tasks.Task(
        **{**reading.model_dump(), "kind": target.kind},
        name=name,
        store=[tasks.to_portable_path(s) for s in stores],
        classes=target.classes,
        split=rule,
        modality=opened.modality,
        recipe=None if recipe is None else tasks.to_portable_path(recipe) if recipe.endswith((".yaml", ".yml")) else recipe,
    )
    return made, target


def list_store_labels(store: Any) -> list[str]:
    """All labels of a store, for a recipe that fits many sets. Raises InputError when it has none."""
    names = list(store.label_names())
    if not names:
        raise InputError(f"{store.paths[0]} was ingested without labels; ingest it again with them, or bring a CSV with --labels")
    return names


def choose_split_rule(store: Any, stores: Sequence[str], given: Mapping[str, Any], known: recipes.Recipe | None) -> tasks.SplitRule:
    """The split: as named, else the recipe's, else the store's official one, else an own one by patient."""
    named = "column" in given or "lists" in given
    base: dict[str, Any] = {}
    if known is not None and known.split is not None and not named:
        base = known.split.model_dump(mode="json")
        base["lists"] = {part: find_official_list(path, stores) for part, path in known.split.lists.items()}
    elif not named and (column := load.find_split_column(store)) is not None:
        base = {"column": column}
    rule = validate_config(tasks.SplitRule, merge_settings(base, {k: None if v == "none" else v for k, v in given.items()}), "the split")
    if rule.source is None and rule.patients_by_split:
        raise InputError("--patients-by-split is about an official split; name its column with --split-column")
    return rule


def find_official_list(name: str, stores: Sequence[str]) -> str:
    """A file that a recipe names, in the working folder or beside the store. Raises InputError when it is in neither."""
    for folder in (Path(), *(Path(s).parent for s in stores)):
        if (folder / name).is_file():
            return tasks.to_portable_path(folder / name)
    raise InputError(
        f"the official list {name} is neither here nor beside the store; copy it from the data set, or give --split-list PART=FILE"
    )
