"""A task: a store, its label columns, and how its patients are split. Each task is one YAML file in `tasks/`."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, model_validator

from encoders.ingest.options import CombineMode
from encoders.runtime.config import Config, read_yaml, to_yaml, validate_config
from encoders.runtime.entry_names import check_entry_name, check_label_name, find_fault, show_name
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.files import atomic_write
from encoders.runtime.paths import home_dir, tasks_dir
from encoders.store.sealed_images import sealed_list_path
from transfer.tasks.options import PARTS, TaskKind
from transfer.tasks.uncertain_labels import LabelPolicy

NUMERIC_ORDER = "numeric"  # in place of the classes of an order: they are numbers


class SplitRule(Config):
    """How patients are divided into train, val and test: by an official split, or at random by patient."""

    column: str | None = Field(None, description="column with the official split; none: a random split by patient")
    pattern: str | None = Field(None, description="regular expression whose first group is the part, for a column such as `key`")
    names: dict[str, str] = Field({}, description="the source's names of its parts -> train, val, test (or empty: excluded)")
    lists: dict[str, str] = Field(
        {}, description="official lists instead of a column: train, val, test -> file with one image name per line"
    )
    seed: int = Field(0, ge=0, description="seed of a random split, and of a validation part drawn from an official train part")
    val: float = Field(0.2, gt=0, lt=1, description="share of validation patients")
    test: float = Field(0.2, gt=0, lt=1, description="share of test patients in a random split")
    patients_by_split: bool = Field(False, description="equal patient ids in different official parts are different patients")

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> "SplitRule":
        if self.source is None and self.val + self.test >= 1:
            raise ValueError(f"--val {self.val} and --test {self.test} leave no train patients; their sum must be below 1")
        return self

    @model_validator(mode="after")
    def _is_one_rule(self) -> "SplitRule":
        unknown = sorted({*self.lists, *filter(None, self.names.values())} - set(PARTS))
        if unknown:
            raise ValueError(f"the parts of a split are {', '.join(PARTS)}, not {', '.join(unknown)}")
        if self.lists and (self.column or self.pattern):
            raise ValueError("a split comes from lists or from a column, not from both")
        if self.pattern and (self.column is None or re.compile(self.pattern).groups < 1):
            raise ValueError("`pattern` of a split needs a `column` to search and a group (...) around the part")
        return self

    @property
    def source(self) -> str | None:
        """Where the official split comes from, for messages; None for a random split."""
        return self.column or ("its lists" if self.lists else None)


class Findings(Config):
    """Several findings in one text column, e.g. `Effusion|Mass` or `['Effusion', 'Mass']`."""

    column: str
    separator: str | None = Field(None, description="what divides lists without brackets; none: found in the column")


class TargetSpec(Config):
    """Which columns are the targets, and how they are read."""

    labels: list[str] = Field(min_length=1, description="label columns, by name")
    kind: TaskKind | None = None
    positive: str | None = Field(None, description="the class that counts as 1 in a binary task of text labels")
    csv: str | list[str] | None = Field(None, description="table with the labels, or several that are joined; none: the store's labels")
    csv_on: str | None = Field(None, description="its column with image names; none: `key`, `file` or another usual name")
    csv_join: list[str] = Field([], description="columns on which several tables are joined; empty: all that they share")
    csv_columns: list[str] = Field([], description="names of the first columns of a table without a line of names")
    csv_derive: list[str] = Field([], description="columns of 0 and 1 that are made by comparisons, e.g. pneumothorax=EncodedPixels!=-1")
    csv_only: list[str] = Field([], description="conditions on its rows, e.g. view=PA|AP; images of other rows have no label")
    combine: CombineMode = Field("error", description="what becomes of rows of one image that disagree: error, max, any, mean, majority")
    reader: str | None = Field(None, description="column of readers, one vote each in mean and majority; none: guessed; empty: rows vote")
    findings: Findings | None = Field(None, description="the column in which the labels are listed as text")
    keep: list[str] = Field([], description="the classes to keep; images of other classes are excluded; empty: all")
    order: list[str] = Field(
        [], description="all classes from lowest to highest, or `numeric` alone for numbers; empty: classes without an order"
    )
    policy: LabelPolicy = LabelPolicy()


class Task(TargetSpec):
    """The content of `tasks/NAME.yaml`."""

    name: str
    store: list[str] = Field(min_length=1, description="paths or globs, relative to the working folder")
    kind: TaskKind
    classes: list[str] = Field(min_length=1, description="names of the target columns, in order")
    split: SplitRule = SplitRule()
    same_people: list[list[str]] = Field([], description="groups of data sets whose equal patient ids are the same people")
    modality: str | None = None
    recipe: str | None = Field(None, description="the recipe it was added with; `transfer tasks check` compares the data with it")

    @model_validator(mode="after")
    def _order_names_every_class(self) -> "Task":
        if self.order != resolve_order(self.order, self.classes, self.kind):
            raise ValueError(f"`order` of a task names its classes from lowest to highest, not {', '.join(self.order)}")
        return self


def resolve_order(order: Sequence[str], classes: Sequence[str], kind: TaskKind) -> list[str]:
    """The classes from lowest to highest as `order` says; [] without an order. `numeric` sorts classes that are numbers.

    An order changes no target and no score. Raises InputError unless it names every class of a multi-class task exactly once."""
    if not order:
        return []
    listed = ", ".join(classes)
    if kind != "multiclass":
        raise InputError(f"--order is for multi-class tasks, and this task is {kind} ({listed}); remove --order")
    if list(order) == [NUMERIC_ORDER] and NUMERIC_ORDER not in classes:
        try:
            return sorted(classes, key=float)
        except ValueError:
            raise InputError(
                f"--order {NUMERIC_ORDER} needs classes that are numbers, and the classes are {listed}; name all of them, lowest first"
            ) from None
    for name in order:
        if name not in classes:
            raise unknown_name_error("class of this task", name, classes, f"(--order names {listed}, from lowest to highest)")
    faults = {
        "names more than once": [name for name in dict.fromkeys(order) if list(order).count(name) > 1],
        "does not name": [name for name in classes if name not in order],
    }
    for fault, names in faults.items():
        if names:
            raise InputError(f"--order {fault} {', '.join(names)}; name each class exactly once, from lowest to highest: {listed}")
    return list(order)


def describe_order(task: Task) -> list[str]:
    """A sentence about the order of the classes of a multi-class task; [] where there is nothing to say."""
    if task.order:
        return [f"order of the classes: {' < '.join(task.order)}"]
    if task.kind != "multiclass" or not all(re.fullmatch(r"[+-]?\d+(\.\d+)?", name) for name in task.classes):
        return []
    return [f"the classes are numbers without an order; if they are grades, add `--order {NUMERIC_ORDER}` for quadratic kappa"]


def to_portable_path(path: str | Path) -> str:
    """The path relative to the working folder if it is inside, so that the folder can be moved; otherwise the absolute path."""
    whole = Path(os.path.abspath(path))
    return str(whole.relative_to(home_dir())) if whole.is_relative_to(home_dir()) else str(whole)


def to_absolute_path(path: str) -> str:
    """The absolute path of one that `to_portable_path` returned."""
    return str(home_dir() / path)


def save_task(task: Task, replace: bool = False) -> Path:
    """Registers `task` and returns its file. Raises InputError for an invalid name, or for one that a different task has."""
    check_entry_name("task", task.name)
    for label in dict.fromkeys([*task.labels, *task.classes]):
        check_label_name(label)
    path = tasks_dir() / f"{task.name}.yaml"
    if path.exists() and not replace and read_task(task.name) != task:
        raise InputError(
            f"task {task.name!r} already exists and is different; `transfer tasks show {task.name}` prints it, --replace replaces it"
        )
    with atomic_write(path) as part:
        part.write_text(to_yaml(task))
    return path


def read_task(name: str) -> Task:
    """The registered task called `name`. Raises InputError naming the nearest ones."""
    path = tasks_dir() / f"{name}.yaml"
    if wrong := find_fault("task", name):
        if name == Path(name).name and path.is_file():
            raise InputError(f"the file of task {show_name(name)} has a name that is not valid ({wrong}); rename it in {tasks_dir()}")
        check_entry_name("task", name)
    if not path.is_file():
        raise unknown_name_error("task", name, list_tasks(), "`transfer tasks list` lists all tasks, `transfer tasks add` registers one")
    return validate_config(Task, read_yaml(path), str(path))


def list_tasks() -> list[str]:
    """All registered tasks, sorted."""
    return sorted(p.stem for p in tasks_dir().glob("*.yaml"))


def remove_task(name: str) -> None:
    """Unregisters a task; its store and records are kept."""
    read_task(name)
    (tasks_dir() / f"{name}.yaml").unlink()
    sealed_list_path(name).unlink(missing_ok=True)


def choose_tasks(names: Sequence[str], modalities: Sequence[str | None]) -> list[Task]:
    """The tasks of these names; without names, all tasks of the encoders' modalities. An encoder without a modality fits every task.

    Raises InputError when no task fits."""
    if names:
        return [read_task(name) for name in dict.fromkeys(names)]
    tasks = [read_task(name) for name in list_tasks()]
    known = {m for m in modalities if m}
    fitting = [t for t in tasks if not known or t.modality is None or t.modality in known]
    if not fitting:
        kind = f" of modality {' or '.join(sorted(known))}" if known and tasks else ""
        registered = f"; registered: {', '.join(f'{t.name} ({t.modality})' for t in tasks)}, choose one with --task" if tasks else ""
        raise InputError(f"no task{kind} is registered{registered}; register one: `transfer tasks add NAME STORE --label COLUMN`")
    return fitting
