"""One process at work on a run: trains to the end, a signal, a rollback or a stop by the watchdog, and exports at the end."""

import time
from functools import partial
from pathlib import Path
from typing import SupportsFloat

from encoders.gallery.refresh import refresh_gallery
from encoders.loading.worker_count import describe_loading
from encoders.runtime import checkpoint, dist
from encoders.runtime.devices import describe_device
from encoders.runtime.json_types import Json
from encoders.runtime.metrics_log import MetricsLog, read_metrics, to_json_number
from encoders.runtime.stop import REQUEUE_EXIT_STATUS, REQUEUE_SIGNALS, StopRequest, listen_for_stop
from encoders.runtime.storage_errors import explain_storage_errors, name_lost
from encoders.store.verified import require_intact
from encoders.zoo.card import Card
from pretrain.loop.setup import Setup, describe_adjustments
from pretrain.loop.train import Diverged, TrainState, fit
from pretrain.run.export import ema_name, export_run
from pretrain.run.monitor import monitor_run
from pretrain.run.process import PrintLine
from pretrain.run.publish_state import publish_state
from pretrain.run.restore import checkpoint_contents, load_run_checkpoint, read_checkpoint, restore_checkpoint
from pretrain.run.rollback import detection_delay, roll_back, short_reason
from pretrain.run.run_info import read_baseline
from pretrain.run.rundir import RunDir, describe_session
from pretrain.run.tracking import decide_outcome, open_metrics_log, send_finding
from pretrain.watch.watchdog import RollbackRequested, Watchdog, probe_interval

STOPPED_BY_WATCHDOG = "watchdog"  # as the requester of a stop; other requesters are names of signals
STOPPED_AT_BEST = "stop_at_best"  # the run is finished before its last step
DIVERGED_EXIT_STATUS = 3  # also of a run that the watchdog stopped
INTERRUPTED_EXIT_STATUS = 130  # 128 + SIGINT, as shells have it


def train_run(run: RunDir, setup: Setup, state: TrainState, say: PrintLine) -> int:
    """Trains from `state` to the end or to a signal, with rollbacks where needed, and exports at the end; returns the exit status."""
    require_intact(setup.corpus.store)
    begin_session(run, setup, state)
    data = setup.recipe.data
    say(f"device: {describe_device(setup.device)}; {describe_loading(data.workers, data.prefetch, setup.device, setup.corpus.store)}")
    for note in describe_adjustments(setup):
        say(f"note: {note}")
    try:
        while True:
            try:
                return train_session(run, setup, state, say)
            except (Diverged, RollbackRequested) as error:
                state = roll_back_run(run, setup, state, error, say)
    finally:
        if dist.is_main():
            publish_state(run, say)


def begin_session(run: RunDir, setup: Setup, state: TrainState) -> None:
    """Enters this session in run.json, and the run in the card."""
    if dist.is_main():
        info = run.read()
        run.requeue_marker.unlink(missing_ok=True)
        session = describe_session(str(setup.device), state.step)
        notes = describe_adjustments(setup)
        run.update(status="running", sessions=[*info["sessions"], session], rollbacks=state.rollbacks, notes=notes)
        refresh_gallery()
        setup.card = setup.card.replace(name=run.name, lineage=setup.card.lineage | {"run": run.name, "run_id": info["id"]})


def roll_back_run(run: RunDir, setup: Setup, state: TrainState, error: Diverged | RollbackRequested, say: PrintLine) -> TrainState:
    """The state to continue from after a rollback. Raises Diverged when the run was rolled back as often as allowed."""
    try:
        step = roll_back(run, setup, state, error, probe_interval(setup))
    except Diverged:
        if dist.is_main():
            run.update(status="diverged")
        raise
    restored = restore_checkpoint(setup, read_checkpoint(run, step), say)
    say(f"run {run.name}: {short_reason(error)}; rolled back to step {step}, learning rate x {restored.lr_factor:g} from there")
    return restored


def train_session(run: RunDir, setup: Setup, state: TrainState, say: PrintLine) -> int:
    """Trains from `state` to the end, a signal or a stop by the watchdog; returns the exit status.

    Raises Diverged and RollbackRequested for what needs a rollback."""
    cfg = setup.recipe

    def save(now: TrainState) -> None:
        if dist.is_main():
            with name_lost(f"step {now.step}", describe_intact(run)):
                checkpoint.save_checkpoint(checkpoint.checkpoint_path(run.checkpoints, now.step), checkpoint_contents(setup, now))
            older = now.step - detection_delay(setup, probe_interval(setup))  # keep one from before a fault that is detected later
            best = watchdog.best_step() if watchdog and cfg.watch.stop_at_best else None
            keep = [] if best is None else [best]
            checkpoint.prune_checkpoints(run.checkpoints, keep_last=2, keep_every=cfg.keep_every, keep_newest_before=older, keep=keep)
            run.update(step=now.step)

    with (
        open_metrics_log(run, setup, state) as metrics_log,
        listen_for_stop() as stop,
        monitor_run(run, setup.steps, not dist.is_main()) as show,
    ):
        watchdog = start_watchdog(run, setup, state, say, metrics_log) if dist.is_main() else None

        def log(step: int, **metrics: SupportsFloat) -> None:
            values = {name: float(value) for name, value in metrics.items()}
            alarm = None
            if watchdog:
                values |= watchdog.measure(step) if watchdog.is_due(step) else {}
                alarm = watchdog.check(step, values)
            metrics_log.log(step, **values)
            show(step, **values)
            if watchdog and cfg.watch.stop_at_best and watchdog.best_step() == step:
                save(state)  # the best so far, whatever save_every is
            if watchdog and watchdog.is_past_best():
                stop.requested = stop.requested or STOPPED_AT_BEST
            if dist.any_rank(alarm is not None, setup.device):
                apply_watch_policy(cfg.watch.policy, alarm or "alarm on rank 0", stop)

        started = time.monotonic()
        try:
            if dist.any_rank(watchdog is not None and watchdog.is_past_best(), setup.device):
                stop.requested = STOPPED_AT_BEST  # the run had ended before this session
            else:
                fit(setup.method, setup.batches, setup.optimizer, setup.scaler, cfg, setup.steps, setup.warmup, state, log, save, stop,
                    setup.device, setup.continuation)  # fmt: skip
        except (Diverged, RollbackRequested):
            metrics_log.outcome = "diverged"  # a rollback opens the same run again
            raise
        finally:
            setup.batches.close()
        if watchdog:
            watchdog.report_share()
        return finish_session(run, setup, state, stop, metrics_log, time.monotonic() - started, say, watchdog)


def describe_intact(run: RunDir) -> str:
    """What a run still has when a checkpoint cannot be saved, and how to go on."""
    steps = checkpoint.list_steps(run.checkpoints)
    kept = f"the previous checkpoint is intact (step {steps[-1]})" if steps else "there is no earlier checkpoint"
    return f"{kept}; once the cause is gone, continue with: pretrain resume {run.name}"


def start_watchdog(run: RunDir, setup: Setup, state: TrainState, say: PrintLine, metrics_log: MetricsLog) -> Watchdog:
    """The watchdog with the metrics logged so far. At step 0 it probes the untrained network for its baseline.

    Its diagnoses, and the metrics of step 0, are also sent to the trackers."""
    watchdog = Watchdog(setup, read_metrics(run.path), read_baseline(run.read()), say, partial(send_finding, metrics_log))
    if state.step == 0:
        watchdog.baseline = watchdog.measure_start(run.start_features)
        run.update(untrained={name: to_json_number(value) for name, value in watchdog.baseline.items()})
        metrics_log.show(0, watchdog.baseline)
    else:
        watchdog.load_start(run.start_features)
    return watchdog


def apply_watch_policy(policy: str, alarm: str, stop: StopRequest) -> None:
    """Acts on an alarm as `watch.policy` says. Raises RollbackRequested for a rollback."""
    if policy == "rollback":
        raise RollbackRequested(alarm)
    if policy == "stop":
        stop.requested = stop.requested or STOPPED_BY_WATCHDOG


def finish_session(
    run: RunDir,
    setup: Setup,
    state: TrainState,
    stop: StopRequest,
    metrics_log: MetricsLog,
    seconds: float,
    say: PrintLine,
    watchdog: Watchdog | None = None,
) -> int:
    """Exports the encoder of a finished run, or prints how to resume a stopped one. Returns the exit status."""
    if not dist.is_main():
        return 0
    sessions = run.read()["sessions"]
    total = sum(s.get("seconds", 0.0) for s in sessions) + seconds
    sessions[-1].update({"to_step": state.step, "seconds": round(seconds, 1), "ended_by": stop.requested})
    run.update(sessions=sessions, seconds=round(total, 1))
    if state.step < setup.steps and stop.requested != STOPPED_AT_BEST:
        run.update(status="stopped")
        metrics_log.outcome = decide_outcome(stop.requested)
        cause = (
            "stopped by the watchdog"
            if stop.requested == STOPPED_BY_WATCHDOG
            else f"stopped by {stop.requested or 'a signal to another rank'}"
        )
        say(f"run {run.name}: {cause}, saved at step {state.step} of {setup.steps}; resume with: pretrain resume {run.name}")
        if stop.requested in REQUEUE_SIGNALS:
            with explain_storage_errors(run.requeue_marker, "the mark for requeueing", describe_intact(run)):
                run.requeue_marker.write_text(f"{stop.requested} at step {state.step}\n")
            return REQUEUE_EXIT_STATUS
        return DIVERGED_EXIT_STATUS if stop.requested == STOPPED_BY_WATCHDOG else INTERRUPTED_EXIT_STATUS
    with name_lost(f"the encoder {run.name}", describe_intact(run).replace("previous checkpoint", "last checkpoint")):
        path = export_encoders(run, setup, watchdog, say)
    save_views_picture(run, setup, state, metrics_log)
    run.update(status="finished", encoder=str(path))
    metrics_log.artifact(run.name, path, {"steps": state.step, "sha256": Card.read(path / "card.yaml").sha256})
    say(f"run {run.name}: {state.step} steps in {total:.0f} s; encoder {run.name!r} is in {path}")
    return 0


def export_encoders(run: RunDir, setup: Setup, watchdog: Watchdog | None, say: PrintLine) -> Path:
    """Publishes the encoder of the last step, or of the best one with `watch.stop_at_best`, and its average; returns the first's folder."""
    step, lineage = None, dict[str, Json]()
    if watchdog is not None and setup.recipe.watch.stop_at_best:
        step = watchdog.best_step(checkpoint.list_steps(run.checkpoints))
        chosen = watchdog.describe_choice(step)
        lineage = {"selected": chosen}
        if step is not None:
            run.update(best=step)
        say(f"run {run.name}: the best k-NN probe is that of step {step}: {chosen['knn']} ({chosen['knn_at_start']} at step 0)")
    path = export_run(run, step, lineage=lineage)
    if setup.recipe.ema:
        average = export_run(run, step, ema_name(run.name), "ema", lineage)
        say(f"run {run.name}: its averaged weights are encoder {ema_name(run.name)!r} in {average}")
    return path


def save_views_picture(run: RunDir, setup: Setup, state: TrainState, metrics_log: MetricsLog) -> None:
    """Writes `views.png` in the run's folder. It shows images of patients, so it is uploaded to W&B only with pictures=wandb."""
    if setup.recipe.pictures == "none":
        return
    from pretrain.display.preview import write_preview  # imports matplotlib, which takes a second

    path = write_preview(setup.recipe, run.path / "views.png", checkpoint=load_run_checkpoint(run, state.step))
    if setup.recipe.pictures == "wandb":
        metrics_log.image(state.step, "views", path)
