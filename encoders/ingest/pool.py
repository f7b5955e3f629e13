"""Jobs done in this process or in spawned ones, with progress, and with an answer for a job that killed its process."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

J = TypeVar("J")
R = TypeVar("R")
Tick = Callable[[int], None]


class Died(RuntimeError):
    """The process that worked on a job died without a word."""


def available_cpus() -> int:
    """The processors that the scheduler gave this process, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(work: Callable[[J, Tick], R], jobs: Sequence[J], workers: int, tick: Tick) -> Iterator[tuple[J, R | Died]]:
    """Every job with what `work(job, tick)` returned, as they end.  `work`: picklable, handed to each process once.

    When a process dies, the jobs that were going on are done again, each in a process of its own, so that only the one that kills it is
    Died. What a job raises is raised here."""
    if workers <= 1 or len(jobs) <= 1:
        yield from ((job, work(job, tick)) for job in jobs)
        return
    left = list(range(len(jobs)))
    while left:
        for k, answer in pooled(work, jobs, tuple(left), workers, tick):
            left.remove(k)
            yield jobs[k], answer
        suspects, left = left[:workers], left[workers:]  # jobs start in order, so those that were going on are the first ones left
        for k in suspects:
            alone = dict(pooled(work, jobs, [k], 1, tick))
            yield jobs[k], alone.get(k, Died("the process that worked on it died (out of memory?)"))


def pooled(work: Callable[[J, Tick], R], jobs: Sequence[J], numbers: Sequence[int], workers: int, tick: Tick) -> Iterator[tuple[int, R]]:
    """Numbers of jobs and their answers from spawned processes (a bare fork after OpenMP has run can hang); ends when one dies."""
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    with ProcessPoolExecutor(min(workers, len(numbers)), context, _begin, (work, counter)) as pool:
        told = 0
        try:
            pending: dict[Future[R], int] = {pool.submit(_work, jobs[k]): k for k in numbers}
            while pending:
                done, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                now = counter.value
                if now > told:
                    tick(now - told)
                told = now
                for future in done:
                    yield pending.pop(future), future.result()
        except BrokenProcessPool:
            return
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_worker: dict[str, Any] = {}  # of a worker process: what all of its jobs share


def _begin(work: Any, counter: Any) -> None:
    _worker.update(work=work, counter=counter)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(job: Any) -> Any:
    def done(n: int) -> None:
        with _worker["counter"].get_lock():
            _worker["counter"].value += n

    return _worker["work"](job, done)
