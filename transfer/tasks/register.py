"""Builds a task from a store, a recipe and the options of the command line; the options override the recipe."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoders.runtime.config import merge_settings, validate_config
from encoders.runtime.errors import InputError
from transfer.tasks import load, recipes
from transfer.tasks.labels import Targets
from transfer.tasks.people import check_same_people
from transfer.tasks.task import SplitRule, TargetSpec, Task, resolve_order, to_portable_path

if TYPE_CHECKING:
    from encoders.store.store import Store

TARGET_FIELDS = tuple(TargetSpec.model_fields)


def build_task(
    name: str, paths: Sequence[str], store: "Store", options: Mapping[str, Any], recipe_name: str | None
) -> tuple[Task, Targets]:
    """The task and its targets.

    paths: of the store.  options: fields of a task's target, `split` and `same_people`; only those that the user gave.
    Raises InputError for labels, a policy or a split that do not fit the store."""
    recipe = recipes.load_recipe(recipe_name) if recipe_name else None
    base = {} if recipe is None else recipe.model_dump(mode="json", include={*TARGET_FIELDS}, exclude_defaults=True)
    target = merge_settings(base, {k: v for k, v in options.items() if k in TARGET_FIELDS})
    if not target.get("labels"):
        raise InputError("no label column was given; name one with --label COLUMN, or a known data set with --recipe")
    target["labels"] = list_store_labels(store) if target["labels"] == ["*"] else target["labels"]
    spec = validate_config(TargetSpec, target, "the target")
    targets = load.read_targets(store, spec)
    rule = choose_split_rule(store, paths, options.get("split", {}), recipe)
    check_same_people(store, same_people := options.get("same_people", []))
    task = Task(
        **{**spec.model_dump(), "kind": targets.kind, "order": resolve_order(spec.order, targets.classes, targets.kind)},
        name=name,
        store=[to_portable_path(path) for path in paths],
        classes=targets.classes,
        split=rule,
        same_people=same_people,
        modality=store.modality,
        recipe=to_portable_path(recipe_name) if recipe_name and recipe_name.endswith((".yaml", ".yml")) else recipe_name,
    )
    return task, targets


def list_store_labels(store: "Store") -> list[str]:
    """All labels of a store, for a recipe with `labels: ["*"]`. Raises InputError when it has none."""
    names = list(store.label_names())
    if not names:
        raise InputError(f"{store.paths[0]} was ingested without labels; ingest it again with labels, or give a CSV file with --labels")
    return names


def choose_split_rule(store: "Store", paths: Sequence[str], options: Mapping[str, Any], recipe: recipes.Recipe | None) -> SplitRule:
    """The split rule of the options, else of the recipe, else the store's official split, else a random split by patient."""
    explicit = "column" in options or "lists" in options
    base: dict[str, Any] = {}
    if recipe is not None and recipe.split is not None and explicit:  # another origin of the parts; the recipe's shares and seed remain
        base = recipe.split.model_dump(mode="json", include={"val", "test", "seed"}, exclude_unset=True)
    if recipe is not None and recipe.split is not None and not explicit:
        base = recipe.split.model_dump(mode="json")
        base["lists"] = {part: find_official_list(path, paths) for part, path in recipe.split.lists.items()}
    elif not explicit and (column := load.find_split_column(store)) is not None:
        base = {"column": column}
    rule = validate_config(SplitRule, merge_settings(base, {k: None if v == "none" else v for k, v in options.items()}), "the split")
    if rule.source is None and rule.patients_by_split:
        raise InputError("--patients-by-split needs an official split; name its column with --split-column")
    return rule


def find_official_list(name: str, paths: Sequence[str]) -> str:
    """The path of a list that a recipe names, in the working folder or beside the store. Raises InputError when it is in neither."""
    for folder in (Path(), *(Path(path).parent for path in paths)):
        if (folder / name).is_file():
            return to_portable_path(folder / name)
    raise InputError(
        f"the official list {name} is neither in the working folder nor beside the store; copy it there from the data set, "
        "or give --split-list PART=FILE"
    )
