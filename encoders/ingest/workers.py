"""Jobs in this process or in spawned processes, with progress, and with an answer for a job that kills its process."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from encoders.runtime.allocator import keep_freed_memory

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

SharedT = TypeVar("SharedT")
JobT = TypeVar("JobT")
AnswerT = TypeVar("AnswerT")
Tick = Callable[[int], None]  # called with the number of units done since the last call


class WorkerDied(RuntimeError):
    """The process of a job died without an exception."""


def available_cpus() -> int:
    """Number of CPUs that the scheduler assigned to this process; the machine may have more."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WorkerPool(Generic[SharedT]):
    """Processes for several rounds of jobs. They stay from round to round, as the imports of a new process take half a second.

    shared: what all jobs need; picklable, sent to each process once.  number: number of processes; 0: jobs run in this process."""

    def __init__(self, shared: SharedT, number: int):
        self.shared, self.number = shared, number
        self._crew: _ProcessCrew[SharedT] | None = None

    def __enter__(self) -> "WorkerPool[SharedT]":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            for child in multiprocessing.active_children():  # do not wait: a slide may take minutes
                child.terminate()
        self._dismiss()

    def run_jobs(
        self, function: Callable[[SharedT, JobT, Tick], AnswerT], jobs: Sequence[JobT], tick: Tick
    ) -> Iterator[tuple[JobT, AnswerT | WorkerDied]]:
        """Every job with the result of `function(shared, job, tick)`, in the order in which jobs end.  function: picklable.

        If a process dies, the running jobs are repeated, each in a process of its own, so that only the job that kills its process gets
        WorkerDied. An exception of a job is raised here."""
        if not self.number:
            yield from ((job, function(self.shared, job, tick)) for job in jobs)
            return
        left = list(range(len(jobs)))
        while left:
            self._crew = self._crew or _ProcessCrew(self.shared, self.number)
            for k, answer in self._crew.run_jobs(function, jobs, tuple(left), tick):
                left.remove(k)
                yield jobs[k], answer
            if not left:
                return
            self._dismiss()  # a process died
            suspects, left = left[: self.number], left[self.number :]  # jobs start in order: the running jobs are the first of the rest
            for k in suspects:
                self._crew = _ProcessCrew(self.shared, 1)
                alone = dict(self._crew.run_jobs(function, jobs, [k], tick))
                self._dismiss()
                yield jobs[k], alone.get(k, WorkerDied("the process that read it died (out of memory?)"))

    def _dismiss(self) -> None:
        if self._crew:
            self._crew.dismiss()
        self._crew = None


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Ctrl-C waits until the block ends. A process that starts in it keeps SIGINT blocked, also while it still imports."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _ProcessCrew(Generic[SharedT]):
    """Spawned processes, usable until one dies. They are not forked, because a fork after OpenMP has run may hang.

    Ctrl-C reaches every process of a terminal; only the parent handles it."""

    def __init__(self, shared: SharedT, number: int):
        context = multiprocessing.get_context("spawn")
        self.counter = context.Value("q", 0)
        self.pool = ProcessPoolExecutor(number, context, _init_worker, (shared, self.counter))

    def run_jobs(
        self, function: Callable[[SharedT, JobT, Tick], AnswerT], jobs: Sequence[JobT], numbers: Sequence[int], tick: Tick
    ) -> Iterator[tuple[int, AnswerT]]:
        """Numbers of jobs and their results; ends early if a process dies."""
        reported = self.counter.value
        pending: dict[Future[AnswerT], int] = {}
        try:
            with _interrupts_blocked():
                for k in numbers:
                    pending[self.pool.submit(_run_job, function, jobs[k])] = k
            while pending:
                done, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                now = self.counter.value
                if now > reported:
                    tick(now - reported)
                reported = now
                for future in done:
                    yield pending.pop(future), future.result()
        except BrokenProcessPool:
            return
        finally:
            for future in pending:
                future.cancel()

    def dismiss(self) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)


@dataclass
class _WorkerState:
    """What all jobs of a worker process share."""

    shared: object
    counter: "Synchronized[int]"  # units done in all processes


_worker_state: _WorkerState | None = None  # set in worker processes only


def _init_worker(shared: object, counter: "Synchronized[int]") -> None:
    global _worker_state
    keep_freed_memory()  # otherwise a third of the memory of a tile is mapped again for the next tile, which stalls the other processes
    _worker_state = _WorkerState(shared, counter)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends a worker whose parent was killed; it would wait for jobs forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_job(function: Callable[[SharedT, JobT, Tick], AnswerT], job: JobT) -> AnswerT:
    state = _worker_state
    assert state is not None

    def tick(n: int) -> None:
        with state.counter.get_lock():
            state.counter.value += n

    return function(cast(SharedT, state.shared), job, tick)
