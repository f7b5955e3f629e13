"""Processes for tests that start in milliseconds: forked from a server that has imported torch and the packages once.

A new interpreter needs about four CPU seconds for these imports; two ranks, or a run that is killed twice, would need eight.
The server (one for each process of pytest) has run no operation of torch, so that a forked process has all of its threads.
"""

import multiprocessing
import os
import traceback
from pathlib import Path
from typing import NamedTuple

PRELOADED = ["torch", "timm", "torch.distributed", "encoders.zoo.encoder", "pretrain.cli.main", "pretrain.loop.train", "pretrain.run.lifecycle"]


class Ended(NamedTuple):
    """How a process ended: its exit status, negative for a signal, and what it printed."""

    status: int
    printed: str


def use_fork_server():
    """The start method "forkserver", whose server has imported `PRELOADED`; other start methods are not changed."""
    multiprocessing.set_forkserver_preload(PRELOADED)
    return multiprocessing.get_context("forkserver")


def run_forked(work, *args, log, env=None, timeout=300):
    """Calls `work(*args)` in a process whose output goes to the file `log`. Returns how it ended; an exception is status 1.

    work: a function of a module.  env: the whole environment of the process; that of this process by default."""
    environment = dict(os.environ) | (env or {})
    process = use_fork_server().Process(target=_call, args=(work, args, environment, os.getcwd(), str(log)))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"not ended after {timeout} s:\n{Path(log).read_text()}")
    return Ended(process.exitcode, Path(log).read_text())


def _call(work, args, environment, folder, log):
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        work(*args)
    except Exception:
        traceback.print_exc()
        os._exit(1)
