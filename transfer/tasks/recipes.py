"""Known data sets: what their labels are, how their patients are split, where they come from. `configs/transfer/*.yaml`, found by name.

A recipe is all that a data set needs that is a folder with a CSV: nothing here knows one by name.
"""

from pathlib import Path

from pydantic import Field

from encoders.runtime.config import read_yaml, validate_config
from encoders.runtime.errors import unknown_name_error
from transfer.tasks.task import SplitRule, TargetSpec


class Recipe(TargetSpec):
    """What `transfer tasks add NAME STORE --recipe X` takes from a file; what the command line names wins.

    Fields of the target as in a task; `labels: ["*"]` means all labels of the store."""

    title: str
    split: SplitRule | None = Field(None, description="`{}`: an own split by patient; nothing: the store's official one, if it has one")
    classes: list[str] = Field([], description="documented classes of a text label, which `transfer tasks check` expects")
    counts: dict[str, dict[str, int]] = Field({}, description="data set, or * -> train, val, test -> documented number of images")
    licence: str
    citation: str
    get: str = Field(description="how to get the data")
    ingest: list[str] = Field(min_length=1, description="the commands that make the store, or the stores")
    add: str = Field("", description="the command that adds the task, where it is not the plain one")
    note: str = Field("", description="what a user must know: what the split can and cannot protect from")


def recipe_folders() -> list[Path]:
    """Where recipes are: beside the packages in a checkout, inside this one when installed."""
    here = Path(__file__).resolve().parents[1]
    return [d for d in (here.parent / "configs" / "transfer", here / "configs") if d.is_dir()]


def find_recipes() -> dict[str, Path]:
    """All recipes by name."""
    return {path.stem: path for folder in reversed(recipe_folders()) for path in sorted(folder.glob("*.yaml"))}


def load_recipe(name: str) -> Recipe:
    """The recipe called `name`, or in the file of that name. Raises InputError naming the nearest ones."""
    known = find_recipes()
    path = Path(name) if name.endswith((".yaml", ".yml")) else known.get(name)
    if path is None:
        raise unknown_name_error("recipe of a task", name, known, "`transfer tasks recipes` shows them; a path of a .yaml file serves too")
    return validate_config(Recipe, read_yaml(path), str(path))
