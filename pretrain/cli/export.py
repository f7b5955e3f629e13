"""`pretrain export`: the encoder of a checkpoint, its average, or encoders between the start and the end of a run."""

from typing import Annotated

import typer

from pretrain.cli.arguments import RunArgument


def export(
    run: RunArgument,
    step: Annotated[
        int | None, typer.Option(help="step of the checkpoint to export  [default: that of watch.stop_at_best, otherwise the newest]")
    ] = None,
    name: Annotated[str | None, typer.Option(help="name of the encoder  [default: name of the run]")] = None,
    weights: Annotated[str, typer.Option(help="last, or ema: the averaged weights of a run with the setting ema")] = "last",
    interpolate: Annotated[
        str | None, typer.Option(help="numbers from 0 (the start) to 1 (the end): one encoder NAME_alphaA between start and end for each")
    ] = None,
) -> None:
    """Export the encoder of a run's checkpoint to the zoo.

    A finished run has exported its encoder already. For example

    \b
        pretrain export cxr_moco --step 5000 --name cxr_moco_5000
        pretrain export cxr_continue --interpolate 0.25,0.5,0.75,1    # weights between `init` and the run's end (WiSE-FT)

    Interpolation includes the running statistics of BatchNorm, mean and variance alike. It needs the run's `init`, unchanged.
    """
    from pretrain.run.export import export_run, parse_weights
    from pretrain.run.interpolate import export_interpolated, parse_alphas
    from pretrain.run.rundir import find_run

    kind = parse_weights(weights)
    if interpolate is None:
        print(export_run(find_run(run), step, name, kind))
        return
    for folder in export_interpolated(find_run(run), parse_alphas(interpolate), step, name, kind):
        print(folder)
