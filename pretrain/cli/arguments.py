"""Arguments and options that several commands share."""

from typing import Annotated

import typer

from pretrain.recipe.recipes import RECIPES

RECIPE_LIST = f"Shipped recipes: {', '.join(RECIPES)}."  # printed below the help of every command that takes a recipe

RECIPE_HELP = "name of a shipped recipe, or path of a YAML file"
RecipeArgument = Annotated[str, typer.Argument(help=RECIPE_HELP)]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(help="settings that differ from the recipe, as key=value; `pretrain settings` lists all keys")
]
RunArgument = Annotated[str, typer.Argument(help="name of a run in runs/, or path of its folder")]
