"""The start and the resumption of a pretraining run: what is checked before training, and which files a new run begins with."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from encoders.runtime import dist
from encoders.runtime.devices import resolve_device
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write, ensure_writable
from encoders.runtime.left_parts import remove_left_parts
from encoders.runtime.paths import zoo_dir
from encoders.runtime.sweep_folder import refuse_sweep_name
from encoders.runtime.trackers import require_trackers
from encoders.runtime.wandb_agent import adopt_run, find_agent_run
from encoders.zoo import publish
from encoders.zoo.card import Card
from pretrain.loop.setup import Setup, build_setup
from pretrain.loop.train import TrainState
from pretrain.recipe import config
from pretrain.recipe.config import Recipe
from pretrain.run import rundir
from pretrain.run.changed_settings import apply_overrides, record_changes, require_unedited_config, settings_digest
from pretrain.run.export import ema_name
from pretrain.run.lock import lock_on_main_rank
from pretrain.run.process import PrintLine, prepare_process, print_on_main_rank
from pretrain.run.restore_newest import restore_newest
from pretrain.run.rundir import RunDir
from pretrain.run.session import train_run


def new_run_dir(name: str | None, recipe: str, out: str | None) -> RunDir:
    """The folder of a new run: `--name`, or the recipe's name, below `--out` or runs/ of the working folder."""
    name = name or default_run_name(recipe)
    refuse_sweep_name(name)
    return rundir.run_dir_for(name, Path(out) if out else None)


def default_run_name(recipe: str) -> str:
    """The name of a run without `--name`: that of the recipe, and in a sweep of W&B also the id of the agent's run."""
    agent = find_agent_run()
    return f"{Path(recipe).stem}_{agent.run_id}" if agent else Path(recipe).stem


def start_run(
    recipe: Recipe, run: RunDir, device: str | None = None, continue_existing: bool = False, say: PrintLine = print_on_main_rank
) -> int:
    """Trains a new run in `run` and exports it; returns the exit status. With `continue_existing`, an existing run is resumed instead.

    Raises InputError when a run of that name exists, unless it is the same run and finished."""
    require_trackers(recipe.track)
    device = prepare_process(device, recipe.threads, recipe.ddp.timeout_min)
    exists = run.exists()
    dist.barrier()  # all ranks check before rank 0 creates the run
    if exists:
        return _continue_existing_run(recipe, run, device, continue_existing, say)
    setup = build_setup(recipe, device)  # errors in the recipe are found before anything is written
    require_free_name(run.name, setup)
    with lock_on_main_rank(run, say):
        if dist.is_main():
            if run.exists():
                raise InputError(f"run {run.name!r} was started by another process a moment ago; choose another --name")
            create_run_files(run, setup, recipe)
        return train_run(run, setup, TrainState(), say)


def _continue_existing_run(recipe: Recipe, run: RunDir, device: str | None, continue_existing: bool, say: PrintLine) -> int:
    """Resumes the existing run. Raises InputError when its settings differ, or when it is unfinished and
    `continue_existing` is False."""
    info = run.read()
    if info["asked"] != config.recipe_identity(recipe):
        raise InputError(
            f"run {run.name!r} exists with other settings ({run.config}); choose another name with --name, or remove {run.path}"
        )
    if info["status"] == "finished" and not continue_existing:
        say(f"run {run.name}: already finished with the same settings, nothing to do (encoder: {info.get('encoder')})")
        return 0
    if not continue_existing:
        raise InputError(
            f"run {run.name!r} exists and is not finished: resume it with `pretrain resume {run.name}`, or choose another --name"
        )
    return resume_run(run, device, say)


def resume_run(
    run: RunDir, device: str | None = None, say: PrintLine = print_on_main_rank, overrides: Sequence[str] = (), allow_change: bool = False
) -> int:
    """Continues from the newest good checkpoint; returns the exit status. A finished run is exported again, with the same result.

    overrides: `key=value` settings that change from here on. Raises InputError for those that decide the weights without `allow_change`."""
    if not run.exists():
        raise InputError(f"{run.path} is not a run: config.yaml or run.json is missing")
    device = resolve_device(device)
    asked, _ = apply_overrides(run, config.read_recipe(run.config), overrides, allow_change)
    require_trackers(asked.track)
    info = run.read()
    adopt_run(info["id"], info.get("wandb_sweep"))
    dist.join_process_group(device, asked.ddp.timeout_min)  # from here on it is known which process is rank 0 and takes the lock
    with lock_on_main_rank(run, say):
        for folder in (run.path, run.checkpoints, zoo_dir()):
            remove_left_parts(folder)  # of a process that was killed while saving
        recipe = config.read_recipe(run.config)
        require_unedited_config(run, recipe)
        recipe, changes = apply_overrides(run, recipe, overrides, allow_change)
        setup, state = restore_newest(run, recipe, device, say)
        if changes:
            if state.step >= setup.steps:
                raise InputError(f"run {run.name!r} is at step {state.step}; with steps={setup.steps} no step is left")
            record_changes(run, setup, changes, state.step)
            say(f"run {run.name}: from step {state.step} on, {'; '.join(f'{c.key} is {c.after} (was {c.before})' for c in changes)}")
        say(f"run {run.name}: resuming at step {state.step} of {setup.steps}")
        return train_run(run, setup, state, say)


def require_free_name(name: str, setup: Setup) -> None:
    """Raises InputError if the encoder could not be published under `name`, or its average beside it, when the run ends."""
    for own in [name, *([ema_name(name)] if setup.recipe.ema else [])]:
        card = ensure_writable(zoo_dir()) / publish.check_zoo_name(own, setup.card) / "card.yaml"
        if card.exists() and Card.read(card).config != setup.card.config:
            raise InputError(f"the zoo has another encoder called {own!r} ({card}); choose another name with --name, or move it away")


def create_run_files(run: RunDir, setup: Setup, recipe: Recipe) -> None:
    """Writes the first files of a run; run.json last, because a run with run.json exists.

    recipe: as the user gave it; `setup.recipe` is the resolved one."""
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    with atomic_write(run.manifest) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **setup.corpus.manifest(), **setup.labels.manifest(setup.corpus))
    config.write_recipe(run.config, setup.recipe)
    agent = find_agent_run()
    run.update(
        id=agent.run_id if agent else os.urandom(4).hex(),
        wandb_sweep=agent.sweep_id if agent else None,
        asked=config.recipe_identity(recipe),
        status="running",
        settings=settings_digest(setup.recipe),
        steps=setup.steps,
        warmup=setup.warmup,
        fingerprint=setup.corpus.store.fingerprint,
        images=len(setup.corpus.index),
        commit=rundir.git_commit(),
        versions=rundir.package_versions(),
        sessions=[],
    )
