"""`pretrain preview`: look at the views before spending hours on them."""

from typing import Annotated

import typer


def preview(
    recipe: Annotated[str | None, typer.Argument(help="recipe: a name (see `pretrain recipes`) or the path of a YAML file")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value settings, e.g. data.store=cxr.h5 augment.blur=0.5")] = None,
    run: Annotated[str | None, typer.Option(help="a run instead of a recipe: its settings, and its weights for reconstructions")] = None,
    step: Annotated[int | None, typer.Option(help="with --run: step of a kept checkpoint; the newest when left out")] = None,
    out: Annotated[str, typer.Option(help="PNG to write")] = "preview.png",
    n: Annotated[int, typer.Option(min=1, max=64, help="images")] = 6,
) -> None:
    """Write a picture of the views that a recipe makes of its first images; for MAE, masked input, reconstruction and target.

    For example

    \b
        pretrain preview cxr_moco data.store=cxr.h5
        pretrain preview cxr_moco data.store=cxr.h5 augment.preset=histology --out other.png
        pretrain preview --run cxr_mae --out reconstructions.png
    """
    from encoders.runtime.errors import InputError
    from pretrain.display.preview import write_preview as made
    from pretrain.recipe import config
    from pretrain.run import rundir

    if (recipe is None) == (run is None):
        raise InputError("preview shows a recipe or a run: name one, e.g. `pretrain preview cxr_moco data.store=cxr.h5` or --run NAME")
    if run is None:
        print(made(config.load_recipe(str(recipe), overrides or []), out, n))
        return
    from pretrain.run.export import load_run_checkpoint

    there = rundir.find_run(run)
    print(made(config.read_recipe(there.config), out, n, load_run_checkpoint(there, step)))
