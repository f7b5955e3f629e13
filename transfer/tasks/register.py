"""Builds a task from a store, a recipe and the options of the command line; the options override the recipe."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoders.runtime.config import merge_settings, validate_config
from encoders.runtime.errors import InputError, unknown_name_error
from transfer.tasks import load, recipes
from transfer.tasks.finding_lists import describe_stored_lists
from transfer.tasks.labels import Targets
from transfer.tasks.official_parts import describe_unused_split, find_split_column, read_split_texts
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
    if not target.get("labels") and (column := target.get("findings", {}).get("column")):
        raise InputError(f"--list-column {column} needs the findings; pass --finding NAME,NAME{describe_stored_lists(store, column)}")
    if not target.get("labels"):
        raise InputError("no label column was given; name one with --label COLUMN, or a known data set with --recipe")
    if target.get("findings") is not None and not target["findings"].get("column"):
        raise InputError("--finding and --list-separator need the column with the lists; pass --list-column NAME too")
    target["labels"] = list_store_labels(store) if target["labels"] == ["*"] else target["labels"]
    spec = validate_config(TargetSpec, target, "the target")
    targets = load.read_targets(store, spec)
    rule = choose_split_rule(store, paths, options.get("split", {}), recipe)
    if rule.source is None and "column" not in options.get("split", {}) and (recipe is None or recipe.split is None):
        targets.messages += describe_unused_split(store)
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
    given = {name: None if value == "none" else value for name, value in options.items()}
    explicit = "column" in given or "lists" in given
    base: dict[str, Any] = {}
    if recipe is not None and recipe.split is not None:
        of_recipe = recipe.split.model_dump(mode="json", exclude_unset=True)
        if explicit and given.get("column") != (recipe.split.column or ""):  # another origin of the parts; shares and seed remain
            of_recipe = {name: value for name, value in of_recipe.items() if name in ("val", "test", "seed")}
        base = of_recipe
        if not explicit or "lists" in given:
            others = {part: path for part, path in recipe.split.lists.items() if part not in (given.get("lists") or {})}
            base["lists"] = {part: find_official_list(path, paths) for part, path in others.items()}
    elif not explicit and (column := find_split_column(store)) is not None:
        base = {"column": column}
    rule = validate_config(SplitRule, merge_settings(base, given), "the split")
    if rule.source is None and rule.patients_by_split:
        raise InputError("--patients-by-split needs an official split; name its column with --split-column")
    check_split_values(store, rule, given.get("names") or {})
    return rule


def check_split_values(store: "Store", rule: SplitRule, named: Collection[str]) -> None:
    """Raises InputError for values of --split-value that the split column does not hold."""
    if not named:
        return
    if rule.column is None:
        raise InputError("--split-value names values of a split column; pass --split-column NAME too")
    texts = read_split_texts(store, rule)
    assert texts is not None
    for value in named:
        if value not in set(texts.tolist()):
            raise unknown_name_error(f"value of split column {rule.column!r}", value, {*texts.tolist()} - {""}, "(for --split-value)")


def find_official_list(name: str, paths: Sequence[str]) -> str:
    """The path of a list that a recipe names, in the working folder or beside the store. Raises InputError when it is in neither."""
    for folder in (Path(), *(Path(path).parent for path in paths)):
        if (folder / name).is_file():
            return to_portable_path(folder / name)
    raise InputError(
        f"the official list {name} is neither in the working folder nor beside the store; copy it there from the data set, "
        "or give --split-list PART=FILE"
    )
