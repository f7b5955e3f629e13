"""Processes for tests that start in milliseconds: forked from a server that has imported torch and the packages once.

A new interpreter needs about four CPU seconds for these imports; two ranks, or a run that is killed twice, would need eight.
The server (one for each process of pytest) has run no operation of torch, so that a forked process has all of its threads.
"""

import multiprocessing
import os
import signal
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
    "tests.fuzz.all_classes",
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


def run_together(works, logs, env=None, timeout=300):
    """Calls several functions at the same moment, each in a process of its own, as `run_forked` does.

    works: (function, arguments) of each. Returns how they ended, in that order."""
    context = use_fork_server()
    barrier = context.Barrier(len(works))
    environment = dict(os.environ) | (env or {})
    files = [(f"{logs}{i}.out", f"{logs}{i}.err") for i in range(len(works))]
    processes = [
        context.Process(target=_call, args=(_wait_and_call, (barrier, work, args), environment, os.getcwd(), out, err))
        for (work, args), (out, err) in zip(works, files, strict=True)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
    ended = [
        Ended(process.exitcode, Path(out).read_text(), Path(err).read_text()) for process, (out, err) in zip(processes, files, strict=True)
    ]
    assert not any(one.status == -signal.SIGKILL for one in ended), ended
    return ended


def _wait_and_call(barrier, work, args):
    barrier.wait(60)
    work(*args)
