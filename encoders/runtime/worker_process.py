"""Loader processes that leave without finalising their interpreter, whatever their start method.

A forked process ends with `os._exit`. A spawned one ends as a program does: CPython finalises, and takes each daemon thread down at its
next wish for the interpreter lock. A thread that is inside C++ then, as the one that feeds a loader's queue may be, unwinds through
frames that allow no exception, and the process aborts ("terminate called without an active exception").
"""

import multiprocessing
import os
from multiprocessing.context import BaseContext, SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess


class _ExitingProcess(SpawnProcess):
    """A spawned process that ends as a forked one: its work, the finalizers of multiprocessing, flushed streams, `os._exit`."""

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        code = 1
        try:
            code = vars(BaseProcess)["_bootstrap"](self, parent_sentinel)  # as in `multiprocessing.popen_fork`; type stubs do not list it
        finally:
            os._exit(code)


class _ExitingSpawnContext(SpawnContext):
    Process = _ExitingProcess


def worker_context(method: str | None = None) -> BaseContext:
    """The multiprocessing context of loader processes.  method: fork, spawn or forkserver; None: the default of this platform."""
    method = method or multiprocessing.get_start_method()
    return _ExitingSpawnContext() if method == "spawn" else multiprocessing.get_context(method)
