"""Arguments and options that several commands share."""

from typing import Annotated

import typer

from pretrain.recipe.recipes import RECIPES, find_recipe

RECIPE_LIST = f"Shipped recipes: {', '.join(RECIPES)}."  # printed below the help of every command that takes a recipe

SETTING_SYNONYMS = {
    "batch_size": ["batch"], "data": ["data.store"], "data_path": ["data.store"], "dataset": ["data.store"], "epoch": ["epochs"],
    "img_size": ["size"], "image_size": ["size"], "learning_rate": ["optim.lr"], "model": ["arch"], "backbone": ["arch"],
    "num_workers": ["data.workers"], "wd": ["optim.weight_decay"], "pretrained": ["init"], "weights": ["init"], "temperature":
    ["method.temperature"], "momentum": ["method.momentum"],
}  # fmt: skip


def check_recipe_name(name: str) -> str:
    """`name`, if there is such a recipe: a wrong name is answered before torch is imported."""
    find_recipe(name)
    return name


RECIPE_HELP = "name of a shipped recipe, or path of a YAML file"
RecipeArgument = Annotated[str, typer.Argument(help=RECIPE_HELP, callback=check_recipe_name)]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(help="settings that differ from the recipe, as key=value; `pretrain settings` lists all keys")
]

RunArgument = Annotated[str, typer.Argument(help="name of a run in runs/, or path of its folder")]


def find_recipe_settings(name: str) -> list[str]:
    """The settings of a recipe that the option `--name` may have meant: of that name, or that end in it."""
    from pretrain.recipe.listing import read_listing

    keys = [row[0] for row in read_listing()["settings"] if not row[0].startswith(("augment.", "auxiliary."))]
    same = [key for key in keys if key == name or key.rpartition(".")[2] == name]
    return same or SETTING_SYNONYMS.get(name, [])
