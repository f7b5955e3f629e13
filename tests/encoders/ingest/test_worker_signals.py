"""Worker processes: Ctrl-C, which a terminal sends to all of them, is handled by the parent only, from their first moment on."""

import os
import signal
from pathlib import Path

from encoders.ingest.workers import WorkerPool


def signals_blocked_by_the_kernel(shared, job, tick):
    """The process and its blocked signals, as Linux states them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return os.getpid(), int(next(line.split()[1] for line in lines if line.startswith("SigBlk:")), 16)


def test_a_worker_starts_with_sigint_blocked_and_the_parent_keeps_its_signals():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with WorkerPool(None, 2) as pool:
        answers = [answer for _, answer in pool.run_jobs(signals_blocked_by_the_kernel, range(4), lambda n: None)]
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    assert len(answers) == 4
    for pid, blocked in answers:
        assert pid != os.getpid()
        assert blocked >> (signal.SIGINT - 1) & 1
