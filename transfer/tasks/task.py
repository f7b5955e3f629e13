"""A task: a store, its label columns and how its patients are split. One YAML file each, below `tasks/`."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from encoders.runtime.config import Config, read_yaml, to_yaml, validate_config
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.files import atomic_write
from encoders.runtime.paths import home_dir, tasks_dir
from transfer.tasks.uncertain_labels import LabelPolicy

PARTS = ("train", "val", "test")
TaskKind = Literal["binary", "multiclass", "multilabel"]
TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class SplitRule(Config):
    """How patients are divided into train, val and test."""

    column: str | None = Field(None, description="column with the official split; none: an own split by patient")
    pattern: str | None = Field(None, description="regular expression whose first group is the part, for a column such as `key`")
    names: dict[str, str] = Field({}, description="what the source calls its parts -> train, val, test (or nothing: left out)")
    lists: dict[str, str] = Field({}, description="official lists instead of a column: train, val, test -> file with an image name a line")
    seed: int = Field(0, ge=0, description="of the own split, and of the validation part carved from an official train part")
    val: float = Field(0.2, gt=0, lt=1, description="share of validation patients")
    test: float = Field(0.2, gt=0, lt=1, description="share of test patients in an own split")
    patients_by_split: bool = Field(False, description="equal patient ids in different official parts are different people")

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> "SplitRule":
        if self.source is None and self.val + self.test >= 1:
            raise ValueError(f"--val {self.val} and --test {self.test} leave nothing to train on; their sum must stay below 1")
        return self

    @model_validator(mode="after")
    def _is_one_rule(self) -> "SplitRule":
        wrong = sorted({*self.lists, *filter(None, self.names.values())} - set(PARTS))
        if wrong:
            raise ValueError(f"the parts of a split are {', '.join(PARTS)}, not {', '.join(wrong)}")
        if self.lists and (self.column or self.pattern):
            raise ValueError("a split comes from lists or from a column, not from both")
        if self.pattern and (self.column is None or re.compile(self.pattern).groups < 1):
            raise ValueError("a pattern of the split needs a column to look in and a group (...) around the part")
        return self

    @property
    def source(self) -> str | None:
        """Where the official split comes from, in a word; None: an own split."""
        return self.column or ("its lists" if self.lists else None)


class Findings(Config):
    """Several findings in one text column."""

    column: str
    separator: str = "|"


class TargetSpec(Config):
    """Which columns make the target, and how they are read."""

    labels: list[str] = Field(min_length=1, description="label columns, by name")
    kind: TaskKind | None = None
    positive: str | None = Field(None, description="the class that counts as 1 in a binary task of text labels")
    csv: str | None = Field(None, description="table that brings the labels")
    csv_on: str | None = Field(None, description="its column that names the image; none: `key` or `file`")
    findings: Findings | None = Field(None, description="the labels are names within the text of one column")
    keep: list[str] = Field([], description="the classes to keep; images of others are left out; empty: all")
    policy: LabelPolicy = LabelPolicy()


class Task(TargetSpec):
    """What `tasks/NAME.yaml` holds."""

    name: str
    store: list[str] = Field(min_length=1, description="paths or globs; relative ones start at the working folder")
    kind: TaskKind
    classes: list[str] = Field(min_length=1, description="names of the columns of the target, in order")
    split: SplitRule = SplitRule()
    modality: str | None = None
    recipe: str | None = Field(None, description="the recipe that it was added with, which `transfer tasks check` holds it against")


def to_portable_path(path: str | Path) -> str:
    """`path` below the working folder as a relative one, so that the folder can move; any other as an absolute one."""
    whole = Path(os.path.abspath(path))
    return str(whole.relative_to(home_dir())) if whole.is_relative_to(home_dir()) else str(whole)


def to_absolute_path(path: str) -> str:
    """The absolute form of what `portable` wrote."""
    return str(home_dir() / path)


def save_task(task: Task, replace: bool = False) -> Path:
    """Registers `task`. Raises InputError for a bad name, or for one that is taken by a different task."""
    if not TASK_NAME.fullmatch(task.name):
        raise InputError(f"a task's name is made of letters, digits, '.', '_' and '-', not {task.name!r}")
    path = tasks_dir() / f"{task.name}.yaml"
    if path.exists() and not replace and read_task(task.name) != task:
        raise InputError(f"task {task.name!r} exists and differs; see `transfer tasks show {task.name}`, and give --replace to change it")
    with atomic_write(path) as part:
        part.write_text(to_yaml(task))
    return path


def read_task(name: str) -> Task:
    """The registered task called `name`. Raises InputError naming the nearest ones."""
    path = tasks_dir() / f"{name}.yaml"
    if not path.is_file():
        raise unknown_name_error("task", name, list_tasks(), "`transfer tasks list` shows them, `transfer tasks add` makes one")
    return validate_config(Task, read_yaml(path), str(path))


def list_tasks() -> list[str]:
    """All registered tasks, sorted."""
    return sorted(p.stem for p in tasks_dir().glob("*.yaml"))


def remove_task(name: str) -> None:
    """Unregisters a task; its store and its records stay."""
    read_task(name)
    (tasks_dir() / f"{name}.yaml").unlink()


def choose_tasks(wanted: Sequence[str], modalities: Sequence[str | None]) -> list[Task]:
    """The tasks named, or else all of the encoders' modality; an encoder without one is benched on all tasks.

    Raises InputError when there is none."""
    if wanted:
        return [read_task(name) for name in dict.fromkeys(wanted)]
    tasks = [read_task(name) for name in list_tasks()]
    known = {m for m in modalities if m}
    fitting = [t for t in tasks if not known or t.modality is None or t.modality in known]
    if not fitting:
        kind = f" of modality {' or '.join(sorted(known))}" if known and tasks else ""
        has = f"; registered: {', '.join(f'{t.name} ({t.modality})' for t in tasks)}, choose one with --task" if tasks else ""
        raise InputError(f"no task{kind} is registered{has}; register one: `transfer tasks add NAME STORE --label COLUMN`")
    return fitting
