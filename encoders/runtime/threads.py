"""Threads that share work of which each item runs on a single thread, so that results are bit-identical for any number of threads."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


class ThreadTeam:
    """Threads that start with the first work, and end with `close` or when the team is deleted."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._pool_key = (0, 0)  # process id, number of threads

    def map(self, function: Callable[[T], None], items: Sequence[T], threads: int) -> None:
        """Calls `function` on each item, on `threads` threads. Call it inside `single_torch_thread`. An error of an item is raised here."""
        if threads == 1 or len(items) == 1:
            for item in items:
                function(item)
            return
        for _ in self._start_pool(threads).map(function, items):
            pass

    def _start_pool(self, threads: int) -> ThreadPoolExecutor:
        if self._pool is None or self._pool_key != (os.getpid(), threads):
            if self._pool_key[0] == os.getpid():
                self.close()  # otherwise this process was forked: the threads belong to the parent, and would never answer
            self._pool, self._pool_key = ThreadPoolExecutor(threads, "team", torch.set_num_threads, (1,)), (os.getpid(), threads)
            # All threads start now: set_num_threads also sets the default of new threads, which `single_torch_thread` restores.
            all_started = threading.Barrier(threads)
            list(self._pool.map(lambda _: all_started.wait(), range(threads)))
        return self._pool

    def close(self) -> None:
        """Ends the threads; later work starts new ones."""
        pool, self._pool = self._pool, None
        if pool is not None and self._pool_key[0] == os.getpid():
            pool.shutdown()


@contextmanager
def single_torch_thread() -> Iterator[int]:
    """Runs torch on one thread inside the block, and restores the number of threads, which it yields, afterwards."""
    before = torch.get_num_threads()
    if before == 1:
        yield 1
        return
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)
