"""One pretraining run from its first command to its last: begin, train, stop, resume, export."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from encoders.runtime import checkpoint, dist
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write, ensure_writable
from encoders.runtime.metrics_log import MetricsLog, read_metrics, to_json_number
from encoders.runtime.paths import zoo_dir
from encoders.runtime.stop import REQUEUE_EXIT_STATUS, REQUEUE_SIGNALS, StopRequest, listen_for_stop
from encoders.zoo import publish
from encoders.zoo.card import Card
from pretrain.loop.setup import Setup, build_setup, describe_adjustments
from pretrain.loop.train import Diverged, TrainState, fit
from pretrain.recipe import config
from pretrain.recipe.config import Recipe
from pretrain.run import changed_settings, rundir
from pretrain.run.export import export_run
from pretrain.run.monitor import monitor_run
from pretrain.run.rollback import detection_delay, roll_back, short_reason
from pretrain.run.rundir import RunDir
from pretrain.watch import RollbackRequested, Watchdog, probe_interval

PrintLine = Callable[[str], None]
STOPPED_BY_WATCHDOG = "watchdog"  # who asked to stop, where signals have their names


def print_on_main_rank(text: str) -> None:
    """A line on standard error, from one process only."""
    if dist.is_main():
        print(text, file=sys.stderr, flush=True)


def pick_device(wanted: str | None) -> str:
    """The device asked for, or this rank's GPU where there is one. Raises InputError for a GPU that is not there, and for no device."""
    try:
        torch.device(wanted or "cpu")
    except RuntimeError as wrong:
        raise InputError(f"--device {wanted!r} is no device; write cpu, cuda, or cuda:1 for the second GPU") from wrong
    if wanted and wanted.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {wanted}: this machine has no CUDA device that torch can use; try --device cpu")
    return wanted or (dist.local_gpu() if torch.cuda.is_available() else "cpu")


def start_run(recipe: Recipe, run: RunDir, device: str | None = None, go_on: bool = False, say: PrintLine = print_on_main_rank) -> int:
    """A new run in `run`, to its export; returns the exit status. With `go_on`, a run that exists is resumed (a requeued job).

    Raises InputError when a run of that name exists, unless it is this very run and finished."""
    device = prepare_process(device, recipe.threads)
    known = run.exists()
    dist.barrier()  # every rank has looked before one of them makes it
    if known:
        return _continue_existing_run(recipe, run, device, go_on, say)
    made = build_setup(recipe, device)  # what is wrong with the recipe is found before anything is written
    require_free_name(run.name, made)
    with lock_on_main_rank(run, say):
        if dist.is_main():
            if run.exists():
                raise InputError(f"run {run.name!r} was started by another process a moment ago; choose another --name")
            create_run_files(run, made, recipe)
        return train_run(run, made, TrainState(), say)


def resume_run(
    run: RunDir, device: str | None = None, say: PrintLine = print_on_main_rank, overrides: Sequence[str] = (), allow_change: bool = False
) -> int:
    """Goes on where the newest good checkpoint stands; returns the exit status. A finished run is exported again, which changes nothing.

    overrides: settings that are to be others from here on. Raises InputError for those that decide the weights without `allow_change`."""
    if not run.exists():
        raise InputError(f"{run.path} is not a run: config.yaml or run.json is missing")
    dist.join_process_group(pick_device(device))  # who is the main rank, and takes the lock, is known from here on
    with lock_on_main_rank(run, say):
        for part in run.checkpoints.glob(".*.part"):
            part.unlink(missing_ok=True)  # what a kill left of a checkpoint
        saved, refused = checkpoint.load_newest(run.checkpoints, of=run.read()["id"])
        for reason in refused:
            say(f"warning: {reason}; using the last good checkpoint, of step {saved['step'] if saved else 0}")
        recipe = config.read_recipe(run.config)
        changed_settings.require_unedited_config(run, recipe)
        recipe, changes = changed_settings.apply_overrides(run, recipe, overrides, allow_change)
        device = prepare_process(device, saved["environment"]["threads"] if saved else recipe.threads)
        made = build_setup(recipe, device, card=saved["card"] if saved else None)
        require_same_images(run, made)
        state = restore_checkpoint(made, saved, say) if saved else TrainState()
        if changes:
            if state.step >= made.steps:
                raise InputError(f"run {run.name!r} stands at step {state.step}; with steps={made.steps} there is nothing left to do")
            changed_settings.record_changes(run, made, changes, state.step)
            say(f"run {run.name}: from step {state.step} on {'; '.join(f'{c.key} is {c.after} (was {c.before})' for c in changes)}")
        say(f"run {run.name}: resuming at step {state.step} of {made.steps}")
        return train_run(run, made, state, say)


def _continue_existing_run(recipe: Recipe, run: RunDir, device: str | None, go_on: bool, say: PrintLine) -> int:
    """A run of that name exists: it is the same one, to be continued or finished, or the name is taken."""
    told = run.read()
    if told["asked"] != config.recipe_identity(recipe):
        raise InputError(
            f"run {run.name!r} exists with other settings ({run.config}); choose another name with --name, or remove {run.path}"
        )
    if told["status"] == "finished" and not go_on:
        say(f"run {run.name}: finished already, with these very settings; nothing to do (zoo: {told.get('encoder')})")
        return 0
    if not go_on:
        raise InputError(f"run {run.name!r} exists and is not finished: `pretrain resume {run.name}` goes on; --name starts another run")
    return resume_run(run, device, say)


def require_free_name(name: str, made: Setup) -> None:
    """Raises InputError when the encoder could not be published under `name` at the end: better now than after a week."""
    card = ensure_writable(zoo_dir()) / publish.check_zoo_name(name, made.card) / "card.yaml"
    if card.exists() and Card.read(card).config != made.card.config:
        raise InputError(f"the zoo has another encoder called {name!r} ({card}); choose another name with --name, or move it away")


def prepare_process(device: str | None, threads: int | None) -> str:
    """Joins the other ranks, pins the CPU threads, and says which device is used."""
    device = pick_device(device)
    dist.join_process_group(device)
    torch.set_num_threads(threads or allowed_cpus())
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    return device


def allowed_cpus() -> int:
    """CPUs this process may use, or OMP_NUM_THREADS where that is set."""
    return int(os.environ.get("OMP_NUM_THREADS") or 0) or len(os.sched_getaffinity(0))


def lock_on_main_rank(run: RunDir, say: PrintLine) -> AbstractContextManager[None]:
    """The run's lock, held by the main rank."""
    return rundir.lock_run(run, say) if dist.is_main() else nullcontext()


def create_run_files(run: RunDir, made: Setup, asked: Recipe) -> None:
    """Writes what a run begins with; run.json last, because with it the run exists."""
    import numpy as np

    run.checkpoints.mkdir(parents=True, exist_ok=True)
    with atomic_write(run.manifest) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **made.corpus.manifest())
    config.write_recipe(run.config, made.recipe)
    run.update(
        id=os.urandom(4).hex(),
        asked=config.recipe_identity(asked),
        status="running",
        settings=changed_settings.settings_digest(made.recipe),
        steps=made.steps,
        warmup=made.warmup,
        fingerprint=made.corpus.store.fingerprint,
        images=len(made.corpus.index),
        commit=rundir.git_commit(),
        versions=rundir.package_versions(),
        sessions=[],
    )


def describe_environment(made: Setup) -> dict[str, Any]:
    """What a bit-exact continuation needs to be equal."""
    return {
        "torch": str(torch.__version__),
        "device": made.device.type,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "ranks": dist.world_size(),
    }


def require_same_images(run: RunDir, made: Setup) -> None:
    """Raises InputError when the store is no longer the one that the run began with."""
    told, store, used = run.read(), made.corpus.store, len(made.corpus.index)
    if (told["fingerprint"], told["images"]) != (store.fingerprint, used):
        raise InputError(
            f"run {run.name!r} began on other images (store {told['fingerprint'][:12]}, {told['images']} used) than "
            f"{made.recipe.data.store} gives now ({store.fingerprint[:12]}, {used} used); put the store back or start a new run"
        )


def restore_checkpoint(made: Setup, saved: dict[str, Any], say: PrintLine) -> TrainState:
    """Puts a checkpoint's numbers in place; says so when the continuation will not be exact to the bit."""
    made.method.load_state_dict(saved["method"], strict=True)
    own = [{k: v for k, v in group.items() if k != "params"} for group in made.optimizer.param_groups]
    made.optimizer.load_state_dict(saved["optimizer"])
    for group, settings in zip(made.optimizer.param_groups, own, strict=True):
        group.update(settings)  # the recipe's: the checkpoint's were those of the recipe before a change
    made.scaler.load_state_dict(saved["scaler"])
    torch.set_rng_state(saved["rng"])
    now, then = describe_environment(made), saved["environment"]
    unlike = [f"{key} was {then.get(key)}, is {now[key]}" for key in now if now[key] != then.get(key)]
    if made.device.type != "cpu":
        unlike.append("GPU kernels add in no fixed order")
    if unlike:
        say(f"note: not exact to the bit ({'; '.join(unlike)}); the run goes on, statistically the same")
    return TrainState(saved["step"], saved["skipped"], saved["skipped_total"], saved["lr_factor"], saved["rollbacks"])


def checkpoint_contents(made: Setup, state: TrainState) -> dict[str, Any]:
    """All that a run is at a step, and beside it the encoder as the zoo reads it (`encoder`, `card`)."""
    return {
        "format": "isograft-checkpoint",
        "version": 1,
        "run": made.card.lineage.get("run_id"),
        "step": state.step,
        "skipped": state.skipped,
        "skipped_total": state.skipped_total,
        "lr_factor": state.lr_factor,
        "rollbacks": state.rollbacks,
        "method": made.method.state_dict(),
        "optimizer": made.optimizer.state_dict(),
        "scaler": made.scaler.state_dict(),
        "rng": torch.get_rng_state(),
        "environment": describe_environment(made),
        "config": config.recipe_identity(made.recipe),
        "versions": rundir.package_versions(),
        "encoder": made.method.encoder().state_dict(),
        "card": made.card.changed(steps=state.step, lineage=made.card.lineage | {"steps": state.step}).model_dump(mode="json"),
    }


def train_run(run: RunDir, made: Setup, state: TrainState, say: PrintLine) -> int:
    """Trains to the end or to a signal, over rollbacks where it must, and exports at the end; returns the exit status."""
    begin_session(run, made, state)
    for note in describe_adjustments(made):
        say(f"note: {note}")
    while True:
        try:
            return train_session(run, made, state, say)
        except (Diverged, RollbackRequested) as why:
            state = roll_back_run(run, made, state, why, say)


def begin_session(run: RunDir, made: Setup, state: TrainState) -> None:
    """Says in run.json and on the card who works on the run now."""
    if dist.is_main():
        told = run.read()
        run.requeue.unlink(missing_ok=True)
        here = rundir.describe_session(str(made.device), state.step)
        run.update(status="running", sessions=[*told["sessions"], here], rollbacks=state.rollbacks)
        made.card = made.card.changed(name=run.name, lineage=made.card.lineage | {"run": run.name, "run_id": told["id"]})


def roll_back_run(run: RunDir, made: Setup, state: TrainState, why: Diverged | RollbackRequested, say: PrintLine) -> TrainState:
    """The state to go on from. Raises Diverged when the run was rolled back often enough."""
    try:
        step = roll_back(run, made, state, why, probe_interval(made), checkpoint_contents)
    except Diverged:
        if dist.is_main():
            run.update(status="diverged")
        raise
    back = restore_checkpoint(made, checkpoint.load_checkpoint(checkpoint.checkpoint_path(run.checkpoints, step)), say)
    say(f"run {run.name}: {short_reason(why)}; back to step {step}, learning rate x {back.lr_factor:g} from there")
    return back


def train_session(run: RunDir, made: Setup, state: TrainState, say: PrintLine) -> int:
    """From `state` to the end, a signal or a stop of the watchdog. Raises Diverged and Ailing for what is to be rolled back."""
    cfg = made.recipe

    def save(now: TrainState) -> None:
        if dist.is_main():
            checkpoint.save_checkpoint(checkpoint.checkpoint_path(run.checkpoints, now.step), checkpoint_contents(made, now))
            older = now.step - detection_delay(made, probe_interval(made))  # one from before a fault that is only noticed later
            checkpoint.prune_checkpoints(run.checkpoints, last=2, every=cfg.keep_every, older=older)
            run.update(step=now.step)

    with (
        open_metrics_log(run, made, state) as track,
        listen_for_stop() as stop,
        monitor_run(run, state.step, made.steps, not dist.is_main()) as show,
    ):
        watch = start_watchdog(run, made, state, say) if dist.is_main() else None

        def log(step: int, **numbers: Any) -> None:
            told = {name: float(value) for name, value in numbers.items()}
            alarm = None
            if watch:
                told |= watch.look(step) if watch.due(step) else {}
                alarm = watch.heed(step, told)
            track.log(step, **told)
            show(step, **told)
            if dist.any_rank(alarm is not None, made.device):
                apply_watch_policy(cfg.watch.policy, alarm or "the first process saw an alarm", stop)

        begun = time.monotonic()
        try:
            fit(made.method, made.batches, made.optimizer, made.scaler, cfg, made.steps, made.warmup, state, log, save, stop, made.device)
        finally:
            made.batches.close()
        return finish_run(run, made, state, stop, track, time.monotonic() - begun, say)


def start_watchdog(run: RunDir, made: Setup, state: TrainState, say: PrintLine) -> Watchdog:
    """The watchdog, with what it saw before; it sees the untrained network at step 0."""
    watch = Watchdog(made, read_metrics(run.path), run.read().get("untrained", {}), say)
    if state.step == 0:
        watch.baseline = watch.look(0)
        run.update(untrained={name: to_json_number(value) for name, value in watch.baseline.items()})
    return watch


def apply_watch_policy(policy: str, alarm: str, stop: StopRequest) -> None:
    """What the policy makes of an alarm. Raises Ailing for a rollback."""
    if policy == "rollback":
        raise RollbackRequested(alarm)
    if policy == "stop":
        stop.requested = stop.requested or STOPPED_BY_WATCHDOG


def open_metrics_log(run: RunDir, made: Setup, state: TrainState) -> MetricsLog:
    """The record of the run, continued at its step, in the same W&B run."""
    told = run.read() if dist.is_main() else {}
    track = MetricsLog(
        run.path,
        group=run.name,
        job_type="pretrain",
        name=run.name,
        config=made.recipe.model_dump(mode="json"),
        resume=told.get("wandb"),
        step=state.step,
        rank=dist.rank(),
    )
    if dist.is_main():
        run.update(wandb=track.id)
    return track


def finish_run(run: RunDir, made: Setup, state: TrainState, stop: StopRequest, track: MetricsLog, seconds: float, say: PrintLine) -> int:
    """What follows the last step: the export, or how to go on. Returns the exit status."""
    if not dist.is_main():
        return 0
    sessions = run.read()["sessions"]
    spent = sum(s.get("seconds", 0.0) for s in sessions) + seconds
    sessions[-1] |= {"to_step": state.step, "seconds": round(seconds, 1), "ended_by": stop.requested}
    run.update(sessions=sessions, seconds=round(spent, 1))
    if state.step < made.steps:
        run.update(status="stopped")
        why = "stopped by the watchdog" if stop.requested == STOPPED_BY_WATCHDOG else stop.requested
        say(f"run {run.name}: {why}, saved at step {state.step} of {made.steps}; go on with: pretrain resume {run.name}")
        if stop.requested in REQUEUE_SIGNALS:
            run.requeue.write_text(f"{stop.requested} at step {state.step}\n")
            return REQUEUE_EXIT_STATUS
        return 3 if stop.requested == STOPPED_BY_WATCHDOG else 130
    path = export_run(run)
    save_views_picture(run, made, state, track)
    run.update(status="finished", encoder=str(path))
    track.artifact(run.name, path, {"steps": state.step, "sha256": Card.read(path / "card.yaml").sha256})
    say(f"run {run.name}: {state.step} steps in {spent:.0f} s; encoder {run.name!r} is in {path}")
    return 0


def save_views_picture(run: RunDir, made: Setup, state: TrainState, track: MetricsLog) -> None:
    """`views.png` in the run's folder, and to W&B only where the recipe says so: these are images of patients."""
    if made.recipe.pictures == "none":
        return
    from pretrain.display.preview import write_preview  # matplotlib takes a second to import
    from pretrain.run.export import load_run_checkpoint

    path = write_preview(made.recipe, run.path / "views.png", checkpoint=load_run_checkpoint(run, state.step))
    if made.recipe.pictures == "wandb":
        track.image(state.step, "views", path)


def new_run_dir(name: str | None, recipe: str, out: str | None) -> RunDir:
    """The folder of a run that is to begin: `--name`, or the recipe's name, below `--out` or the working folder's runs/."""
    return rundir.run_dir_for(name or Path(recipe).stem, Path(out) if out else None)
