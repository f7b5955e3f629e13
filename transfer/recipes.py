"""Known data sets: what their labels are, how their patients are split, where they come from. `configs/transfer/*.yaml`, found by name."""

from pathlib import Path

from pydantic import Field

from encoders.runtime.config import Config, read_yaml, validated
from encoders.runtime.errors import unknown
from transfer.task import Kind


class Recipe(Config):
    """What `transfer tasks add NAME STORE --recipe X` takes from a file; what the command line names wins."""

    title: str
    labels: list[str] = Field(min_length=1, description="label columns of the store")
    kind: Kind | None = None
    positive: str | None = None
    split_column: str | None = Field(None, description="column with the official split, or `none` for an own one by patient")
    patients_by_split: bool = False
    licence: str
    citation: str
    get: str = Field(description="how to get the data")
    ingest: str = Field(description="the command that makes the store")


def folders() -> list[Path]:
    """Where recipes are: beside the packages in a checkout, inside this one when installed."""
    here = Path(__file__).resolve().parent
    return [d for d in (here.parent / "configs" / "transfer", here / "configs") if d.is_dir()]


def found() -> dict[str, Path]:
    """All recipes by name."""
    return {path.stem: path for folder in reversed(folders()) for path in sorted(folder.glob("*.yaml"))}


def load(name: str) -> Recipe:
    """The recipe called `name`, or in the file of that name. Raises InputError naming the nearest ones."""
    known = found()
    path = Path(name) if name.endswith((".yaml", ".yml")) else known.get(name)
    if path is None:
        raise unknown("recipe of a task", name, known, "`transfer tasks recipes` shows them; a path of a .yaml file serves too")
    return validated(Recipe, read_yaml(path), str(path))
