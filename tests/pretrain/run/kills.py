"""Starts a run and kills it (SIGKILL) twenty times, at random moments of the clock and at random bytes of a checkpoint, in turn.

    python -m tests.pretrain.run.kills NAME RECIPE key=value ...      prints the step of the newest checkpoint at each kill, as JSON

The libraries are imported once and every start is a fork, because twenty starts of Python would take minutes.
"""

import io
import json
import os
import random
import signal
import sys
import time

import torch

import pretrain.cli.main
import pretrain.methods
import pretrain.run.lifecycle
from encoders.runtime import checkpoint
from pretrain.run import rundir

KILLS = 20


def main() -> None:
    name, *words = sys.argv[1:]
    rng, steps = random.Random(0), []
    for i in range(KILLS):
        exists = rundir.run_dir_for(name).exists()
        command = ["resume", name] if exists else ["run", *words, "--name", name]
        child = start_and_maybe_die([*command, "--device", "cpu"], saves=rng.randint(1, 4) if i % 2 else None, part=rng.random())
        if i % 2 == 0:
            wait_for_a_line(name)
            time.sleep(rng.uniform(0, 0.2))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, f"start {i} was not killed: {status}"
        steps.append(max(checkpoint.list_steps(rundir.run_dir_for(name).checkpoints), default=0))
    print(json.dumps(steps))


def start_and_maybe_die(command: list[str], saves: int | None, part: float) -> int:
    """The process id of a `pretrain` that is killed in its save number `saves`, when the share `part` of the file is written."""
    child = os.fork()
    if child:
        return child
    if saves is not None:
        checkpoint.torch.save = make_dying_save(saves, part)
    sys.argv = ["pretrain", *command]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    pretrain.cli.main.main()
    os._exit(1)


def make_dying_save(saves: int, part: float):  # type: ignore[no-untyped-def]
    real, left = torch.save, [saves]

    def save(state, file):  # type: ignore[no-untyped-def]
        whole = io.BytesIO()
        real(state, whole)
        left[0] -= 1
        data = whole.getvalue()
        file.write(data[: int(len(data) * part)] if left[0] == 0 else data)
        file.flush()
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return save


def wait_for_a_line(name: str) -> None:
    """Waits until the run logs a line: only then does it train."""
    record = rundir.run_dir_for(name).path / "metrics.jsonl"
    size, end = record.stat().st_size if record.exists() else 0, time.monotonic() + 60
    while (record.stat().st_size if record.exists() else 0) <= size and time.monotonic() < end:
        time.sleep(0.01)


if __name__ == "__main__":
    main()
