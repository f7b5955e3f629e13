"""`pretrain preview`: a picture of the views before hours are spent on them."""

from typing import Annotated

import typer

from pretrain.cli.arguments import RECIPE_HELP, OverridesArgument


def preview(
    recipe: Annotated[str | None, typer.Argument(help=RECIPE_HELP)] = None,
    overrides: OverridesArgument = None,
    run: Annotated[
        str | None, typer.Option(help="show a run instead of a recipe: with its settings, and its weights for reconstructions")
    ] = None,
    step: Annotated[int | None, typer.Option(help="with --run: step of the checkpoint  [default: the newest]")] = None,
    out: Annotated[str, typer.Option(help="PNG file to write")] = "preview.png",
    n: Annotated[int, typer.Option("--n", "-n", min=1, max=64, help="number of images")] = 6,
) -> None:
    """Draw the augmented views of a recipe's first images.

    One row per image, one column per view. Of methods that hide patches: for mae, simmim and spark the masked input, the reconstruction
    and the target; for dinov2 each masked view beside the whole one; for ijepa the context that is seen and the blocks that are predicted.
    For example

    \b
        pretrain preview cxr_moco data.store=cxr.h5
        pretrain preview cxr_moco data.store=cxr.h5 augment.preset=histology --out other.png
        pretrain preview --run cxr_mae --out reconstructions.png
    """
    from encoders.runtime.errors import InputError
    from pretrain.display.preview import write_preview
    from pretrain.recipe import config

    if (recipe is None) == (run is None):
        raise InputError(
            "give either a recipe or a run, e.g. `pretrain preview cxr_moco data.store=cxr.h5` or `pretrain preview --run NAME`"
        )
    if run is None:
        print(write_preview(config.load_recipe(str(recipe), overrides or []), out, n))
        return
    from pretrain.run.restore import load_run_checkpoint
    from pretrain.run.rundir import find_run

    where = find_run(run)
    print(write_preview(config.read_recipe(where.config), out, n, load_run_checkpoint(where, step)))
