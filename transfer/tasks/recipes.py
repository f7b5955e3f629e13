"""Recipes: known data sets with their labels, official split, source and commands. Each is one file `configs/transfer/NAME.yaml`.

`RECIPES` finds them by name. To add a data set, add a YAML file; no code knows a data set by name.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import Field

from encoders.runtime.config import read_yaml, validate_config
from encoders.runtime.errors import unknown_name_error
from transfer.tasks.task import SplitRule, TargetSpec


class Recipe(TargetSpec):
    """The settings that `transfer tasks add NAME STORE --recipe X` takes from a file; options of the command line override them.

    The target's fields are those of a task; `labels: ["*"]` stands for all labels of the store."""

    title: str
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
        """The command that adds a task from this recipe."""
        return self.add or f"transfer tasks add {name} STORE --recipe {name}"


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
