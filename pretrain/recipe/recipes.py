"""The shipped recipes by name: the one list that `pretrain recipes`, the help texts, the error messages and the tests read."""

from difflib import get_close_matches
from pathlib import Path

from encoders.runtime.errors import InputError, unknown_name_error

PACKAGE = Path(__file__).resolve().parents[1]
RECIPE_FOLDERS = (PACKAGE.parent / "configs" / "pretrain", PACKAGE / "configs")  # in a checkout; inside an installed package

RECIPES: dict[str, Path] = {path.stem: path for folder in reversed(RECIPE_FOLDERS) for path in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """The file of a recipe given by name or path. Raises InputError that names the closest known recipes."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        if Path(name).is_file():
            return Path(name)
        near = get_close_matches(Path(name).stem, RECIPES, n=3)
        shipped = f"write {' or '.join(near)} for the shipped recipe" if near else "`pretrain recipes` lists those that are given by name"
        raise InputError(f"there is no recipe file {name}; {shipped}")
    if name not in RECIPES:
        raise unknown_name_error("recipe", name, RECIPES, "`pretrain recipes` lists them; give a file of your own by its path.")
    return RECIPES[name]


def read_title(path: Path) -> str:
    """The first comment line of a recipe: method, network and data."""
    return path.read_text().partition("\n")[0].lstrip("# ").strip()
