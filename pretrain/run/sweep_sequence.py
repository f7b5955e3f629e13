"""The runs of a sweep one after the other on this machine, each in a process of its own. A run that fails does not stop the others."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from encoders.runtime.errors import InputError
from encoders.runtime.launcher import srun_variable
from encoders.runtime.stop import REQUEUE_EXIT_STATUS, StopRequest, listen_for_stop
from pretrain.run.session import DIVERGED_EXIT_STATUS, INTERRUPTED_EXIT_STATUS
from pretrain.run.sweep import PlannedRun, PlannedSweep

FINISHED, FINISHED_BEFORE, NOT_STARTED = "finished", "finished before", "not started"
MEANINGS = {
    2: "failed: wrong input",
    DIVERGED_EXIT_STATUS: "diverged, or stopped by the watchdog",
    REQUEUE_EXIT_STATUS: "stopped by a signal, saved",
    INTERRUPTED_EXIT_STATUS: "stopped by Ctrl-C, saved",
}
CHILD_POLL_S = 0.2  # between two looks at a run and at the signals to pass on
Launch = Callable[[Sequence[str], StopRequest], int]


def run_in_sequence(sweep: PlannedSweep, device: str, launch: "Launch | None" = None) -> tuple[dict[str, str], int]:
    """The result of each run in words, by name, and the exit status: 0, 1 if a run failed, 75 or 130 if a signal ended the sweep.

    Runs that are finished are skipped, and unfinished ones resumed.  launch: runs `pretrain run` with these arguments, and returns its exit
    status. Raises InputError in one of several processes that train together."""
    if int(os.environ.get("WORLD_SIZE") or srun_variable("SLURM_NTASKS") or 1) > 1:
        raise InputError("--sweep starts its runs itself, and this is one of several processes: use `pretrain submit --sweep`")
    launch = launch or launch_run
    sweep.folder.write(sweep.info)
    results = {run.name: FINISHED_BEFORE if run.is_finished() else NOT_STARTED for run in sweep.runs}
    todo, failed = [run for run in sweep.runs if results[run.name] == NOT_STARTED], False
    with listen_for_stop() as stop:
        for position, run in enumerate(todo, 1):
            print(f"sweep {sweep.folder.name}: run {position} of {len(todo)}, {run.name}", file=sys.stderr, flush=True)
            code = launch(_list_words(sweep, run, device), stop)
            results[run.name] = FINISHED if code == 0 else describe_exit(code)
            failed |= code != 0
            if stop.requested:
                return results, INTERRUPTED_EXIT_STATUS if stop.requested == "SIGINT" else REQUEUE_EXIT_STATUS
    return results, int(failed)


def launch_run(words: Sequence[str], stop: StopRequest) -> int:
    """Runs `pretrain run` in a process; returns its exit status, negative for a signal that killed it.

    SIGTERM and SIGUSR1 are passed on to it, so that it saves; a terminal sends Ctrl-C to both."""
    env = {name: value for name, value in os.environ.items() if name != "WANDB_RUN_ID"}  # the runs of a sweep are several runs in W&B too
    child = subprocess.Popen([sys.executable, "-m", "pretrain", "run", *words], env=env)
    passed_on = False
    while True:
        try:
            return child.wait(CHILD_POLL_S)
        except subprocess.TimeoutExpired:
            if stop.requested not in (None, "SIGINT") and not passed_on:
                child.send_signal(signal.Signals[stop.requested])
                passed_on = True
        except KeyboardInterrupt:  # the second Ctrl-C, which the run got as well
            continue


def describe_exit(code: int) -> str:
    """What an exit status other than 0 means."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"{MEANINGS.get(code, 'failed')} (exit status {code})"


def _list_words(sweep: PlannedSweep, run: PlannedRun, device: str) -> list[str]:
    out = ["--out", sweep.info.folder] if sweep.info.folder else []
    return [sweep.info.recipe, *run.overrides, "--name", run.name, "--continue", "--device", device, *out]
