"""Processes for tests that start in milliseconds: forked from a server that has imported torch and the packages once.

A new interpreter needs about four CPU seconds for these imports; two ranks, or a run that is killed twice, would need eight.
The server (one for each process of pytest) has run no operation of torch, so that a forked process has all of its threads.
"""

import multiprocessing
import os
from pathlib import Path
from typing import NamedTuple

PRELOADED = [
    "torch",
    "timm",
    "torch.distributed",
    "encoders.zoo.encoder",
    "pretrain.cli.main",
    "pretrain.loop.train",
    "pretrain.run.lifecycle",
]


class Ended(NamedTuple):
    """How a process ended: its exit status, negative for a signal, and what it printed."""

    status: int
    printed: str
    errors: str


def use_fork_server():
    """The start method "forkserver", whose server has imported `PRELOADED`; other start methods are not changed."""
    multiprocessing.set_forkserver_preload(PRELOADED)
    return multiprocessing.get_context("forkserver")


def run_forked(work, *args, logs, env=None, timeout=300):
    """Calls `work(*args)` in a process whose output goes to the files `logs`.out and `logs`.err. Returns how it ended.

    work: a function of a module; an exception is printed, and is status 1.  env: variables beside those of this process."""
    out, err = Path(f"{logs}.out"), Path(f"{logs}.err")
    environment = dict(os.environ) | (env or {})
    process = use_fork_server().Process(target=_call, args=(work, args, environment, os.getcwd(), str(out), str(err)))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"not ended after {timeout} s:\n{out.read_text()}{err.read_text()}")
    return Ended(process.exitcode, out.read_text(), err.read_text())


def _call(work, args, environment, folder, out, err):
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with open(out, "wb") as printed, open(err, "wb") as errors:
        os.dup2(printed.fileno(), 1)
        os.dup2(errors.fileno(), 2)
    work(*args)
