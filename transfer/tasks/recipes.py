"""Recipes: known data sets with their labels, official split, source and commands. Each is one file `configs/transfer/NAME.yaml`.

`RECIPES` finds them by name. To add a data set, add a YAML file; no code knows a data set by name.
"""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import Field

from encoders.runtime.config import read_yaml, validate_config
from encoders.runtime.errors import unknown_name_error
from transfer.tasks.task import SplitRule, TargetSpec

MAX_LABELS_SHOWN = 7


class Recipe(TargetSpec):
    """The settings that `transfer tasks add NAME STORE --recipe X` takes from a file; options of the command line override them.

    The target's fields are those of a task; `labels: ["*"]` stands for all labels of the store."""

    title: str
    modality: str = Field("cxr", description="modality of the store, for the table of data sets")
    group: str = Field("patient", description="what counts as a patient if the data set names none: lesion, slide, image, ...")
    split: SplitRule | None = Field(
        None, description="`{}`: a random split by patient; not given: the official split of the store, if it has one"
    )
    classes: list[str] = Field([], description="documented classes of a text label, which `transfer tasks check` expects")
    counts: dict[str, dict[str, int]] = Field({}, description="data set, or * -> train, val, test -> documented number of images")
    licence: str
    citation: str
    get: str = Field(description="how to get the data")
    ingest: list[str] = Field(min_length=1, description="the commands that create the store or stores")
    add: str = Field("", description="the command that adds the task, if it is not `transfer tasks add NAME STORE --recipe NAME`")
    note: str = Field("", description="a limitation that users must know, e.g. what the split cannot protect from")

    def add_command(self, name: str) -> str:
        """The command that adds a task from this recipe. The stores are those that the ingest commands write."""
        return self.add or f"transfer tasks add {name} {' '.join(map(written_store, self.ingest))} --recipe {name}"

    def describe_split(self) -> str:
        """The split rule in words."""
        rule = self.split
        if rule is None or rule.source is None:
            return f"random, by {self.group}"
        origin = "official lists" if rule.lists else "official, from the path" if rule.pattern else "official"
        has_val = "val" in {*rule.lists, *rule.names.values()}
        return origin if has_val else f"{origin}; {100 * rule.val:g} % of the train {self.group}s for validation"

    def describe_labels(self) -> str:
        """The labels in words: names of a few, the number of many, with what uncertain labels count as."""
        names = [f"{self.labels[0]} = {self.positive}" if self.positive else name for name in self.labels]
        text = ", ".join(names) if len(names) <= MAX_LABELS_SHOWN else f"{len(names)} labels: {', '.join(names[:MAX_LABELS_SHOWN])}, ..."
        if self.labels == ["*"]:
            text = "all labels of the file"
        if self.classes:
            text = f"{self.labels[0]}: {', '.join(self.classes)}"
        if self.keep:
            text = f"{self.labels[0]}: {', '.join(self.keep)}"
        return text + (f"; uncertain {self.policy.uncertain}" if self.policy.uncertain else "")


def written_store(command: str) -> str:
    """The store that an ingest command writes, as a word of a shell: OUT, or a quoted pattern of the stores of slides."""
    words = shlex.split(command)
    kind, out = words[2], words[4]
    return shlex.quote(f"{out}/*.h5") if kind == "wsi" else shlex.quote(out)


class RecipeFiles(Mapping[str, Recipe]):
    """The recipes of some folders by name, each read when it is looked up. Of files with equal names, the first folder's counts."""

    def __init__(self, *folders: Path):
        self.folders = folders

    @property
    def files(self) -> dict[str, Path]:
        """Name -> file, sorted within each folder."""
        return {path.stem: path for folder in reversed(self.folders) for path in sorted(folder.glob("*.yaml"))}

    def __getitem__(self, name: str) -> Recipe:
        return read_recipe(self.files[name])

    def __contains__(self, name: object) -> bool:
        return name in self.files

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


PACKAGE = Path(__file__).resolve().parents[1]
# Beside the packages in a checkout, inside this package when installed.
RECIPES = RecipeFiles(PACKAGE.parent / "configs" / "transfer", PACKAGE / "configs")


def read_recipe(path: Path) -> Recipe:
    """The recipe in a file. Raises InputError for an unknown or missing setting."""
    return validate_config(Recipe, read_yaml(path), str(path))


def load_recipe(name: str) -> Recipe:
    """The recipe called `name`, or the one in a file if `name` ends in .yaml. Raises InputError naming the nearest ones."""
    if name.endswith((".yaml", ".yml")):
        return read_recipe(Path(name))
    if name not in RECIPES:
        raise unknown_name_error(
            "recipe of a task", name, RECIPES, "`transfer tasks recipes` lists all; the path of a .yaml file works too"
        )
    return RECIPES[name]
