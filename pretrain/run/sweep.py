"""A sweep as it is to be run: the runs of its grid, checked against those that exist, and what earlier commands began."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from encoders.runtime import paths, slurm_jobs
from encoders.runtime.errors import InputError
from encoders.runtime.sweep_folder import SweepFolder, SweepInfo, SweepRun, find_sweep
from pretrain.recipe.config import Recipe, load_recipe, recipe_identity
from pretrain.recipe.sweep_grid import SweepAxis, list_grid, parse_axes
from pretrain.run.rundir import RunDir, run_dir_for


class PlannedRun(NamedTuple):
    """A run of the sweep.  number: of its line in runs.txt, and of its array task.  overrides: those that all share, then its own."""

    number: int
    name: str
    overrides: list[str]
    recipe: Recipe
    folder: RunDir

    def is_finished(self) -> bool:
        """Whether it was trained to its end."""
        return self.folder.exists() and self.folder.read()["status"] == "finished"

    def active_job(self) -> str | None:
        """Its job in the queue; None without one."""
        return slurm_jobs.find_active_job(self.folder.path)


class PlannedSweep(NamedTuple):
    """The sweep with the runs of earlier commands (`info`), and those of this command (`runs`)."""

    folder: SweepFolder
    info: SweepInfo
    runs: list[PlannedRun]


def plan_sweep(
    recipe: str, overrides: Sequence[str], sweep: Sequence[str], name: str | None = None, out: str | None = None
) -> PlannedSweep:
    """The sweep, of which nothing is written yet.

    sweep: texts `key=a,b`.  name: by default that of the recipe.  out: folder of the runs.
    A sweep that exists gets the runs that it does not have yet. Raises InputError for a setting that cannot be used, a run or encoder that
    has the sweep's name, and runs of these names with other settings."""
    name = name or Path(recipe).stem
    axes = parse_axes(sweep, overrides)
    known = find_sweep(name)
    if known is None:
        _require_free_sweep_name(name)
    folder = known or SweepFolder(paths.sweeps_dir() / name)
    info = _extend_sweep(folder, recipe, overrides, axes, str(Path(out).absolute()) if out else None)
    numbers = {run.name: number for number, run in enumerate(info.runs)}
    root = Path(info.folder) if info.folder else None
    runs = []
    for run in list_grid(name, _sort_axes(axes, info.keys)):
        words = [*overrides, *run.settings]
        runs.append(PlannedRun(numbers[run.name], run.name, words, load_recipe(recipe, words), run_dir_for(run.name, root)))
    for planned in runs:
        require_same_settings(planned)
    return PlannedSweep(folder, info, runs)


def require_same_settings(planned: PlannedRun) -> None:
    """Raises InputError if the run exists with other settings."""
    run = planned.folder
    if run.exists() and run.read()["asked"] != recipe_identity(planned.recipe):
        raise InputError(
            f"run {run.name!r} exists with other settings ({run.config}); choose another --name for the sweep, or remove {run.path}"
        )


def list_commands(info: SweepInfo) -> list[list[str]]:
    """The arguments of `pretrain run` of each run, after its name, in the order of their numbers."""
    return [[run.name, info.recipe, *info.overrides, *run.settings] for run in info.runs]


def _require_free_sweep_name(name: str) -> None:
    """Raises InputError if a run or an encoder is called so: the name of a sweep stands for all of its runs."""
    run = run_dir_for(name)  # raises for a name that is not a file name
    taken = run.path if run.exists() or slurm_jobs.list_jobs(run.path) else paths.zoo_dir() / name
    if taken.exists():
        raise InputError(f"a sweep cannot be called {name!r}, because {taken} exists; choose another name with --name")


def _extend_sweep(folder: SweepFolder, recipe: str, overrides: Sequence[str], axes: Sequence[SweepAxis], out: str | None) -> SweepInfo:
    """The contents of sweep.json with the runs of this command. Raises InputError if the sweep varies, or fixes, other settings."""
    keys = [axis.key for axis in axes]
    if not folder.info_file.is_file():
        return SweepInfo(recipe=recipe, overrides=list(overrides), keys=keys, folder=out, runs=list_grid(folder.name, axes))
    old = folder.read()
    if sorted(old.keys) != sorted(keys):
        raise InputError(
            f"sweep {folder.name!r} varies {' and '.join(old.keys)}, not {' and '.join(keys)}; choose another name with --name"
        )
    if old.folder != out:
        raise InputError(f"the runs of sweep {folder.name!r} are in {old.folder or paths.runs_dir()}; give the same --out")
    if (old.recipe, old.overrides) != (recipe, list(overrides)):
        for run in old.runs:
            before, now = (load_recipe(file, [*words, *run.settings]) for file, words in ((old.recipe, old.overrides), (recipe, overrides)))
            if recipe_identity(before) != recipe_identity(now):
                given = " ".join([old.recipe, *old.overrides])
                raise InputError(f"sweep {folder.name!r} exists with other settings ({given}); choose another name with --name")
    names = set(folder.run_names())
    added: list[SweepRun] = [run for run in list_grid(folder.name, _sort_axes(axes, old.keys)) if run.name not in names]
    return old.model_copy(update={"recipe": recipe, "overrides": list(overrides), "runs": [*old.runs, *added]})


def _sort_axes(axes: Sequence[SweepAxis], keys: Sequence[str]) -> list[SweepAxis]:
    """The axes in the order in which the sweep was started, which is that of its runs' names."""
    return sorted(axes, key=lambda axis: keys.index(axis.key))
