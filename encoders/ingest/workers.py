"""Jobs done in this process or in spawned ones, with progress, and with an answer for a job that killed its process."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, TypeVar

from encoders.runtime.allocator import keep_freed_memory

S = TypeVar("S")
J = TypeVar("J")
R = TypeVar("R")
Tick = Callable[[int], None]


class WorkerDied(RuntimeError):
    """The process that worked on a job died without a word."""


def available_cpus() -> int:
    """The processors that the scheduler gave this process, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WorkerPool(Generic[S]):
    """Processes for several rounds of jobs: to start one costs half a second of imports, so they stay from round to round.

    shared: what all jobs need; picklable, handed to each process once.  number: of processes; 0: jobs are done in this one."""

    def __init__(self, shared: S, number: int):
        self.shared, self.number = shared, number
        self._crew: _ProcessCrew | None = None

    def __enter__(self) -> "WorkerPool[S]":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            for child in multiprocessing.active_children():  # not to be waited for: a slide may take minutes
                child.terminate()
        self._dismiss()

    def each(self, do: Callable[[S, J, Tick], R], jobs: Sequence[J], tick: Tick) -> Iterator[tuple[J, R | WorkerDied]]:
        """Every job with what `do(shared, job, tick)` returned, as they end.  `do`: a function of a module, or of a class.

        When a process dies, the jobs that were going on are done again, each in a process of its own, so that only the one that kills it
        is Died. What a job raises is raised here."""
        if not self.number:
            yield from ((job, do(self.shared, job, tick)) for job in jobs)
            return
        left = list(range(len(jobs)))
        while left:
            self._crew = self._crew or _ProcessCrew(self.shared, self.number)
            for k, answer in self._crew.done(do, jobs, tuple(left), tick):
                left.remove(k)
                yield jobs[k], answer
            if not left:
                return
            self._dismiss()  # one of them died
            suspects, left = left[: self.number], left[self.number :]  # jobs start in order: those that were going on are the first left
            for k in suspects:
                self._crew = _ProcessCrew(self.shared, 1)
                alone = dict(self._crew.done(do, jobs, [k], tick))
                self._dismiss()
                yield jobs[k], alone.get(k, WorkerDied("the process that worked on it died (out of memory?)"))

    def _dismiss(self) -> None:
        if self._crew:
            self._crew.dismiss()
        self._crew = None


class _ProcessCrew:
    """Spawned processes (a bare fork after OpenMP has run can hang), until one dies."""

    def __init__(self, shared: Any, number: int):
        context = multiprocessing.get_context("spawn")
        self.counter = context.Value("q", 0)
        self.pool = ProcessPoolExecutor(number, context, _init_worker, (shared, self.counter))

    def done(self, do: Callable[[Any, J, Tick], R], jobs: Sequence[J], numbers: Sequence[int], tick: Tick) -> Iterator[tuple[int, R]]:
        """Numbers of jobs and their answers; ends early when a process dies."""
        told = self.counter.value
        pending: dict[Future[R], int] = {}
        try:
            for k in numbers:
                pending[self.pool.submit(_run_job, do, jobs[k])] = k
            while pending:
                done, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                now = self.counter.value
                if now > told:
                    tick(now - told)
                told = now
                for future in done:
                    yield pending.pop(future), future.result()
        except BrokenProcessPool:
            return
        finally:
            for future in pending:
                future.cancel()

    def dismiss(self) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)


_worker_state: dict[str, Any] = {}  # of a worker process: what all of its jobs share


def _init_worker(shared: Any, counter: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches every process of the terminal; the parent is the one that answers
    keep_freed_memory()  # a third of a tile's memory would be mapped anew for the next tile, which stalls the other processes too
    _worker_state.update(shared=shared, counter=counter)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_job(do: Any, job: Any) -> Any:
    def done(n: int) -> None:
        with _worker_state["counter"].get_lock():
            _worker_state["counter"].value += n

    return do(_worker_state["shared"], job, done)
