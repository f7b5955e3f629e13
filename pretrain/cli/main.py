"""Pretrain an image encoder on unlabeled images.

A run takes a recipe (method, network, schedule) and a store of images, which `encoders ingest` writes. For example

\b
    pretrain recipes                                      # choose one
    pretrain preview cxr_moco_tiny data.store=cxr.h5      # look at the augmented views
    pretrain plan cxr_moco_tiny data.store=cxr.h5         # estimate time and memory
    pretrain run cxr_moco_tiny data.store=cxr.h5          # train, and export the encoder to the zoo

Runs are kept in runs/ and encoders in zoo/, below the working folder or the folder that ISOGRAFT_HOME names. Exit status of all commands:
0 success, 2 wrong input; `pretrain run --help` lists those of a run.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from encoders import __version__
from encoders.gallery.refresh import refreshes_gallery
from encoders.runtime.cli import DeviceOption, add_version_option, make_console, run_cli
from encoders.runtime.command_line import use_tool_commands
from encoders.runtime.wandb_agent import add_agent_settings, find_agent_run
from pretrain.cli.arguments import RECIPE_LIST, OverridesArgument, RecipeArgument, RunArgument, find_recipe_settings
from pretrain.cli.export import export
from pretrain.cli.jobs import cancel, logs, status
from pretrain.cli.preview import preview
from pretrain.cli.report import report
from pretrain.cli.sibling_options import ADVICE, WITHOUT_EFFECT
from pretrain.cli.submit import stage, submit
from pretrain.cli.sweep import SweepOption, print_sweep_plan, run_sweep
from pretrain.recipe.recipes import RECIPES, read_title

if TYPE_CHECKING:
    from pretrain.recipe.listing import SettingRow

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, rich_markup_mode=None, pretty_exceptions_enable=False)
add_version_option(app, __version__)


@app.command(epilog=RECIPE_LIST)
@refreshes_gallery
def run(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    name: Annotated[str | None, typer.Option(help="name of the run and of its encoder  [default: name of the recipe]")] = None,
    out: Annotated[str | None, typer.Option(help="folder in which the run's folder is created  [default: runs/]")] = None,
    sweep: SweepOption = None,
    device: DeviceOption = "auto",
    continue_existing: Annotated[
        bool, typer.Option("--continue", help="resume the run if it exists; for jobs that are started more than once")
    ] = False,
) -> None:
    """Train an encoder and export it to the zoo.

    For example

    \b
        pretrain run cxr_moco data.store=cxr.h5
        pretrain run cxr_moco_tiny data.store=cxr.h5 arch=resnet18 size=128 steps=2000 --name cxr_small
        pretrain run cxr_moco data.store=cxr.h5 --sweep seed=0,1,2 --sweep optim.lr=0.03,0.06     # six runs, one after the other

    The run's files are in runs/NAME: config.yaml (all settings), metrics.jsonl, checkpoints/, run.json. Ctrl-C saves a checkpoint and
    stops; `pretrain resume NAME` then continues as if the run had never stopped. A watchdog detects collapse and divergence; watch.policy
    says whether it warns, stops or rolls back.

    With --sweep, the runs are called NAME_seed0_lr0.03 and so on. One that fails does not stop the others; a table at the end lists all.
    The same command again skips finished runs, resumes unfinished ones and repeats failed ones; with more values it adds runs. `pretrain
    status NAME` lists the runs of the sweep, and `transfer bench --encoder NAME` compares their encoders.

    \b
    Exit status:
      0    finished
      1    with --sweep: a run failed
      2    wrong input
      3    diverged, or stopped by the watchdog; a checkpoint is saved
      75   stopped by SIGTERM or SIGUSR1; saved, to be resumed
      130  stopped by Ctrl-C; saved
    """
    if sweep:
        raise typer.Exit(run_sweep(recipe, overrides or [], sweep, name, out, device))
    settings, again = add_agent_settings(overrides or []), continue_existing or find_agent_run() is not None
    from pretrain.recipe.config import load_recipe
    from pretrain.run.lifecycle import new_run_dir, start_run

    _exit_with_status(lambda: start_run(load_recipe(recipe, settings), new_run_dir(name, recipe, out), device, again))


@app.command(epilog=RECIPE_LIST)
def plan(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    name: Annotated[str | None, typer.Option(help="name of the run, as for `pretrain run`; says if it exists")] = None,
    sweep: SweepOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Estimate the size, time and memory of a run. Nothing is written.

    Speed and memory are measured by a few training steps on this machine, at the run's own batch, which takes about a minute at most.
    Notes point out settings that are adjusted to the data, and settings that are probably a mistake. For example

    \b
        pretrain plan cxr_moco data.store=cxr.h5
        pretrain plan cxr_moco data.store=cxr.h5 batch=64 --device cpu
        pretrain plan cxr_moco data.store=cxr.h5 --sweep seed=0,1,2 --sweep optim.lr=0.03,0.06

    With --sweep, runs whose steps cost the same are measured once, and the time of all runs together is the last line.
    """
    if sweep:
        return print_sweep_plan(recipe, overrides or [], sweep, name, device)
    from pretrain.recipe.config import load_recipe
    from pretrain.run.plan import plan_run
    from pretrain.run.process import prepare_process
    from pretrain.run.rundir import run_dir_for

    resolved = load_recipe(recipe, overrides or [])
    rows, notes, _, _ = plan_run(resolved, prepare_process(device, resolved.threads))
    for label, value in rows:
        make_console().print(f"{label:14} {value}", markup=False, soft_wrap=True)
    if name and run_dir_for(name).exists():
        notes.append(f"run {name!r} exists: `pretrain run` asks for another --name, and `pretrain resume {name}` continues it")
    for note in notes:
        make_console().print(f"note: {note}", markup=False, soft_wrap=True)


app.command(epilog=RECIPE_LIST)(preview)


@app.command()
@refreshes_gallery
def resume(
    run: RunArgument,
    overrides: Annotated[list[str] | None, typer.Argument(help="settings to change from here on, as key=value")] = None,
    device: DeviceOption = "auto",
    allow_change: Annotated[
        bool, typer.Option("--allow-change", help="also change settings that decide the weights; the change is recorded in run.json")
    ] = False,
) -> None:
    """Resume a stopped or killed run from its newest good checkpoint.

    For example

    \b
        pretrain resume cxr_moco
        pretrain resume cxr_moco log_every=1 data.workers=4                  # these do not decide the weights
        pretrain resume cxr_moco optim.lr=0.01 steps=20000 --allow-change    # these do; run.json and the card record them

    Without changes, a run resumed on a CPU ends with weights that are bit-identical to those of an uninterrupted run. A checkpoint that is
    damaged, or of another run, is skipped with a warning, and the newest good one is used.
    """
    from pretrain.run.lifecycle import resume_run
    from pretrain.run.rundir import find_run

    _exit_with_status(lambda: resume_run(find_run(run), device, overrides=overrides or [], allow_change=allow_change))


app.command()(refreshes_gallery(export))


app.command()(status)


@app.command()
def watch(run: RunArgument, once: Annotated[bool, typer.Option("--once", help="print the present state and exit")] = False) -> None:
    """Show the dashboard of a run: progress, curves, speed, diagnoses.

    For example

    \b
        pretrain watch cxr_moco            # updates until the run ends; Ctrl-C ends the dashboard, not the run
        pretrain watch cxr_moco --once
    """
    from pretrain.run.monitor import follow_run
    from pretrain.run.rundir import find_run

    follow_run(find_run(run), once)


app.command()(refreshes_gallery(report))


app.command(epilog=RECIPE_LIST)(refreshes_gallery(submit))
app.command()(logs)
app.command()(refreshes_gallery(cancel))
app.command(epilog=RECIPE_LIST)(stage)


@app.command()
def recipes() -> None:
    """List the shipped recipes.

    The header of a recipe's file states its claim, its cost, its command, and where its values come from. Recipes that end in _tiny run in
    minutes on a CPU.
    """
    width = max(map(len, RECIPES))
    for name, path in RECIPES.items():
        print(f"{name:{width}} {read_title(path)}")


@app.command()
def methods(
    names: Annotated[
        list[str] | None, typer.Argument(help="methods to show with all their settings  [default: all methods, without their settings]")
    ] = None,
) -> None:
    """List the methods, or show the settings of some.

    For example

    \b
        pretrain methods
        pretrain methods moco lejepa

    \b
    takes    networks that the method works with
    cost     how often an image passes through an encoder per step; a forward and backward pass keeps its activations in GPU memory
    needs    batch size, normalisation, memory
    choose   when to choose the method
    """
    from encoders.runtime.errors import unknown_name_error
    from pretrain.recipe.listing import SettingRow, read_listing

    methods = read_listing()["methods"]
    for unknown in sorted(set(names or []) - set(methods)):
        raise unknown_name_error("method", unknown, methods)
    for name in names or methods:
        print(f"{name}: {methods[name]['summary']}")
        for label, text in methods[name]["traits"]:
            print(f"  {label:7} {text}")
        if names:
            _print_settings([SettingRow(*row) for row in methods[name]["settings"]])


@app.command()
def settings() -> None:
    """List all settings of a recipe with their defaults.

    Use them as key=value, e.g. `pretrain run cxr_moco data.store=cxr.h5 optim.lr=0.01`. `pretrain methods NAME` lists the settings of a
    method.
    """
    from pretrain.recipe.listing import SettingRow, read_listing

    _print_settings([SettingRow(*row) for row in read_listing()["settings"]])


def _print_settings(rows: "list[SettingRow]") -> None:
    width = max(len(row.key) for row in rows)
    for key, default, text in rows:
        print(f"  {key:{width}} {text}  [{default}]")


def _exit_with_status(work: Callable[[], int]) -> None:
    """Exits with the status that `work` returns."""
    from encoders.runtime import dist
    from pretrain.loop.train import Diverged
    from pretrain.run.session import DIVERGED_EXIT_STATUS

    try:
        code = work()
    except Diverged as error:
        typer.echo(f"error: {error}", err=True)
        code = DIVERGED_EXIT_STATUS
    finally:
        dist.leave_process_group()
    raise typer.Exit(code)


use_tool_commands(app, find_recipe_settings, WITHOUT_EFFECT, ADVICE)


def main() -> None:
    run_cli(app)
