"""A few threads among which work is shared that each piece does on one thread, so that its bits do not depend on how many there are."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch


class ThreadTeam:
    """Threads that start with the first work, and end with `close`, or with whoever held the team."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._of = (0, 0)  # process, threads

    def each(self, work: Callable[[Any], None], pieces: Sequence[Any], threads: int) -> None:
        """`work` on each piece, on so many threads. Called inside `one_thread`. What a piece raises is raised here."""
        if threads == 1 or len(pieces) == 1:
            for piece in pieces:
                work(piece)
            return
        for _ in self._started(threads).map(work, pieces):
            pass

    def _started(self, threads: int) -> ThreadPoolExecutor:
        if self._pool is None or self._of != (os.getpid(), threads):
            if self._of[0] == os.getpid():
                self.close()  # else this process was forked: threads stay with the parent, and nobody would answer
            self._pool, self._of = ThreadPoolExecutor(threads, "team", torch.set_num_threads, (1,)), (os.getpid(), threads)
            all_here = threading.Barrier(threads)  # all set it now, because it also sets what new threads get, which `one_thread` restores
            list(self._pool.map(lambda _: all_here.wait(), range(threads)))
        return self._pool

    def close(self) -> None:
        """Ends the threads; later work starts new ones."""
        pool, self._pool = self._pool, None
        if pool is not None and self._of[0] == os.getpid():
            pool.shutdown()


@contextmanager
def single_torch_thread() -> Iterator[int]:
    """torch on one thread inside, as before outside. Gives the number from before."""
    before = torch.get_num_threads()
    if before == 1:
        yield 1
        return
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)
