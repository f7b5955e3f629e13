"""Kills (SIGKILL) at chosen moments of a run: before a step of the optimizer, before a file is flushed, gets its name or is removed, and
when half of a checkpoint or of a line is written.

A moment is counted from the start of its step, so that a resumed run reaches the moment that an earlier one has. The moments of a whole
run, the export included, are recorded once; twenty of them are then chosen, one from each twentieth.
"""

import io
import itertools
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import NamedTuple

from encoders.runtime import checkpoint, line_file, metrics_log
from pretrain.cli.main import main
from pretrain.loop import train
from pretrain.run import session
from tests.forked import run_forked

KILLS = 20
OPERATIONS = ("fsync", "replace", "link", "rename", "unlink", "mkdir")  # of `os`


class Moment(NamedTuple):
    """The event number `event` since step `step` began.  kind: what would happen next."""

    step: int
    event: int
    kind: str


def record_moments(home, words, logs) -> list[Moment]:
    """Trains a run to its end in a process of its own; returns its moments, in order."""
    written = Path(f"{logs}.moments")
    done = run_forked(_train, None, str(written), words, env=_environment(home), logs=logs)
    assert done.status == 0, done
    return [Moment(*moment) for moment in json.loads(written.read_text())]


def choose_moments(moments, seed=0) -> list[Moment]:
    """One moment from each twentieth of a run, at random; the last one is among the last two."""
    rng = random.Random(seed)
    bounds = [len(moments) * i // KILLS for i in range(KILLS + 1)]
    chosen = [moments[rng.randrange(start, end)] for start, end in itertools.pairwise(bounds)]
    return [*chosen[:-1], moments[-rng.randint(1, 2)]]


def run_until_moment(home, moment, words, logs):
    """Starts or resumes a run, in a process that is killed at the moment, or at the first one after it; None: it runs to its end."""
    return run_forked(_train, moment and tuple(moment), None, words, env=_environment(home), logs=logs)


def _environment(home):
    return {"ISOGRAFT_HOME": str(home), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}


def _train(moment, written, words):
    """`pretrain ...` in this process. Writes its moments to `written`, or dies at `moment`."""
    clock = Clock(moment)
    clip, fit = train.clip_gradients, session.fit
    session.fit = lambda *given: (clock.start_at(next(one for one in given if isinstance(one, train.TrainState)).step), fit(*given))[1]
    train.clip_gradients = lambda *given: (clock.begin_step(), clip(*given))[1]
    for name in OPERATIONS:
        setattr(os, name, clock.count(name, getattr(os, name)))
    checkpoint.torch.save = clock.halve(checkpoint.torch.save)
    metrics_log.append_line = clock.halve_line(line_file.append_line)
    sys.argv = ["pretrain", *map(str, words)]
    status = 0
    try:
        main()
    except SystemExit as left:
        status = left.code or 0
    if written is not None:
        Path(written).write_text(json.dumps(clock.moments))
    raise SystemExit(status)


class Clock:
    """Counts the events of each step. Kills this process at the given moment."""

    def __init__(self, fatal):
        self.fatal = fatal and (fatal[0], fatal[1])
        self.step, self.event, self.moments = 0, 0, []

    def start_at(self, step):
        """The step at which a session begins; its events are numbered from there."""
        if step > 0:
            self.step, self.event = step, 0

    def begin_step(self):
        self.step, self.event = self.step + 1, 0
        self.pass_event("step")

    def pass_event(self, kind):
        if self.is_due():
            os.kill(os.getpid(), signal.SIGKILL)
        self.moments.append((self.step, self.event, kind))
        self.event += 1

    def is_due(self):
        return self.fatal is not None and (self.step, self.event) >= self.fatal

    def count(self, kind, real):
        def operation(*given, **more):
            self.pass_event(kind)
            return real(*given, **more)

        return operation

    def halve(self, real):
        """`torch.save` that has written half of its file when it dies."""

        def save(state, file):
            whole = io.BytesIO()
            real(state, whole)
            data = whole.getvalue()
            if self.is_due():
                file.write(data[: len(data) // 2])
                file.flush()
            self.pass_event("half a checkpoint")
            file.write(data)

        return save

    def halve_line(self, real):
        """`append_line` that has written half of its line when it dies."""

        def append(file, line, lost):
            if self.is_due():
                file.write(line.encode()[: len(line) // 2])
            self.pass_event("half a line")
            real(file, line, lost)

        return append
