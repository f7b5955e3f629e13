"""`pretrain`: a store of unlabeled images and a recipe become an encoder."""

from typing import Annotated

import typer

from encoders.runtime.cli import run_cli as boundary
from pretrain.cli.preview import preview
from pretrain.cli.submit import stage, submit

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, rich_markup_mode=None, pretty_exceptions_enable=False)

RecipeArgument = Annotated[str, typer.Argument(help="recipe: a name (see `pretrain recipes`) or the path of a YAML file")]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(help="key=value settings (see `pretrain settings`), e.g. data.store=cxr.h5 batch=64")
]
RunArgument = Annotated[str, typer.Argument(help="run: a name below runs/, or its path")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; a GPU where there is one when left out")]


@app.command()
def run(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    name: Annotated[str | None, typer.Option(help="name of the run and of the encoder; the recipe's when left out")] = None,
    out: Annotated[str | None, typer.Option(help="folder for the run; runs/ when left out")] = None,
    device: DeviceOption = None,
    go_on: Annotated[bool, typer.Option("--continue", help="go on with the run if it exists: for jobs that are started again")] = False,
) -> None:
    """Pretrain an encoder and put it into the zoo.

    For example

    \b
        pretrain run cxr_moco data.store=cxr.h5
        pretrain run cxr_moco_tiny data.store=cxr.h5 arch=resnet18 size=128 steps=2000 --name cxr_small

    Everything is kept in runs/NAME: config.yaml (every setting), metrics.jsonl, checkpoints/, run.json. Ctrl-C saves; `pretrain resume
    NAME` goes on as if never stopped. A watchdog looks for collapse and divergence (watch.policy=warn, stop or rollback). Exit status: 0
    done, 2 wrong input, 3 diverged or stopped by the watchdog (saved), 75 stopped by SIGTERM or SIGUSR1 (saved, to be resumed), 130 stopped
    by Ctrl-C (saved).
    """
    from pretrain.recipe import config
    from pretrain.run import lifecycle as runs

    _exit_with_status(
        lambda: runs.start_run(config.load_recipe(recipe, overrides or []), runs.new_run_dir(name, recipe, out), device, go_on)
    )


@app.command()
def plan(recipe: RecipeArgument, overrides: OverridesArgument = None, device: DeviceOption = None) -> None:
    """Say what a run would do and cost here: rates, lengths, memory and time from a few timed steps. Writes nothing."""
    from encoders.runtime.cli import make_console
    from pretrain.recipe import config
    from pretrain.run.lifecycle import prepare_process
    from pretrain.run.plan import plan_run as planned

    chosen = config.load_recipe(recipe, overrides or [])
    rows, notes = planned(chosen, prepare_process(device, chosen.threads))
    for what, value in rows:
        make_console().print(f"{what:14} {value}", markup=False, soft_wrap=True)
    for note in notes:
        make_console().print(f"note: {note}", markup=False, soft_wrap=True)


app.command()(preview)


@app.command()
def resume(
    run: RunArgument,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value settings that are to be others from here on")] = None,
    device: DeviceOption = None,
    allow_change: Annotated[bool, typer.Option("--allow-change", help="also such as decide the weights; written down in run.json")] = False,
) -> None:
    """Go on with a run that was stopped or killed, from its newest good checkpoint.

    For example

    \b
        pretrain resume cxr_moco
        pretrain resume cxr_moco log_every=1 data.workers=4                  # what does not decide the weights may change
        pretrain resume cxr_moco optim.lr=0.01 steps=20000 --allow-change    # what does is written down: run.json, card

    Without changes the run ends with the weights of the run never stopped, bit for bit on a CPU. A damaged checkpoint, or one of another
    run, is refused with its reason, and the last good one is used.
    """
    from pretrain.run import lifecycle as runs
    from pretrain.run import rundir

    _exit_with_status(lambda: runs.resume_run(rundir.find_run(run), device, overrides=overrides or [], allow_change=allow_change))


@app.command()
def export(
    run: RunArgument,
    step: Annotated[int | None, typer.Option(help="step of a kept checkpoint; the newest when left out")] = None,
    name: Annotated[str | None, typer.Option(help="name of the encoder; the run's when left out")] = None,
) -> None:
    """Put the encoder of a run's checkpoint into the zoo."""
    from pretrain.run import rundir
    from pretrain.run.export import export_run as publish

    print(publish(rundir.find_run(run), step, name))


@app.command()
def status(runs: Annotated[list[str] | None, typer.Argument(help="runs; all when left out")] = None) -> None:
    """Say how far the runs are."""
    from rich.table import Table

    from encoders.runtime.cli import make_console
    from pretrain.run import rundir
    from pretrain.run import status as states

    table = Table(*states.STATUS_HEADER, box=None)
    for one in [rundir.find_run(name) for name in runs] if runs else rundir.list_runs():
        table.add_row(*states.status_row(one))
    make_console().print(table if table.row_count else "no run yet; start one with `pretrain run RECIPE data.store=FILE.h5`")


@app.command()
def watch(run: RunArgument, once: Annotated[bool, typer.Option("--once", help="print it once and return")] = False) -> None:
    """Show the dashboard of a run, running or finished, from its record: curves, speed, where the time goes, what ails it.

    For example

    \b
        pretrain watch cxr_moco            # follows it from another terminal, until it ends; Ctrl-C only stops watching
        pretrain watch cxr_moco --once
    """
    from pretrain.run import rundir
    from pretrain.run.monitor import follow_run

    follow_run(rundir.find_run(run), once)


@app.command()
def report(
    run: RunArgument, out: Annotated[str | None, typer.Option(help="the HTML file; report.html in the run's folder when left out")] = None
) -> None:
    """Write one self-contained HTML page on a run: curves, diagnoses, views, settings, environment, lineage, sessions, rollbacks.

    For example

    \b
        pretrain report cxr_moco
        pretrain report cxr_moco --out page.html

    The views show images of patients; remove views.png from the run's folder first for a page that is to be passed on.
    """
    from pathlib import Path

    from pretrain.run import rundir
    from pretrain.run.report import write_report

    where = rundir.find_run(run)
    print(write_report(where, Path(out) if out else where.path / "report.html"))


app.command()(submit)
app.command()(stage)


@app.command()
def recipes() -> None:
    """List the shipped recipes with what they claim."""
    from pretrain.recipe import config

    for name, path in config.list_recipes().items():
        print(f"{name:18} {config.read_claim(path)}")


@app.command()
def methods(
    names: Annotated[list[str] | None, typer.Argument(help="methods whose settings are shown, too; none when left out")] = None,
) -> None:
    """List the methods: what each takes, needs and costs, and when to choose it; with a name, its settings and published values.

    For example

    \b
        pretrain methods
        pretrain methods moco lejepa

    Cost is how often an image passes the encoder in a step. Passes with a backward keep their activations, which are what fills a GPU.
    """
    from encoders.runtime.errors import unknown_name_error
    from pretrain.methods import METHODS
    from pretrain.recipe import config

    for wrong in sorted(set(names or []) - set(METHODS)):
        raise unknown_name_error("method", wrong, METHODS)
    for name in names or METHODS:
        method, module = METHODS[name], __import__(METHODS[name].__module__, fromlist=["__doc__"])
        print(f"{name}: {(module.__doc__ or '').strip().partition(chr(10))[0]}")
        traits = method.traits
        for word in ("takes", "cost", "needs", "choose"):
            print(f"  {word:7} {getattr(traits, word)}")
        if names:
            _print_settings(config.describe_settings(method.Config, "method."))


@app.command()
def settings() -> None:
    """List every setting of a recipe, for use as key=value; a method's own are under `pretrain methods NAME`."""
    from encoders.augment.config import Augment
    from pretrain.recipe import config

    _print_settings(config.describe_settings())
    _print_settings(config.describe_settings(Augment, "augment."))


def _print_settings(rows: list[tuple[str, str, str]]) -> None:
    for key, default, text in rows:
        print(f"  {key:24} {text}  [{default}]")


def _exit_with_status(work: "object") -> None:
    """Leaves with the exit status that `work` returns."""
    from encoders.runtime import dist
    from pretrain.loop.train import Diverged

    try:
        code = work()  # type: ignore[operator]
    except Diverged as wrong:
        typer.echo(f"error: {wrong}", err=True)
        code = 3
    finally:
        dist.leave_process_group()
    raise typer.Exit(code)


def main() -> None:
    boundary(app)
