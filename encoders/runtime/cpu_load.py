"""How many of the CPUs of this process others use, so that threads are not started where they would wait.

An operation with several threads ends with the slowest. If another process holds a CPU, two threads on two CPUs train more slowly than one
(tests/perf/waiting_threads.py), and their spin takes time from the other process too."""

import os
import time
from pathlib import Path

from encoders.runtime import launcher
from encoders.runtime.cpus import count_affine_cpus, count_allowed_cpus

CPU_COUNTERS = Path("/proc/stat")
SAMPLE_S = 0.5  # the counters advance by hundredths of a second
IDLE_FIELDS = (3, 4)  # of the fields after the name: idle, and waiting for a disk


def count_free_cpus(sample_s: float = SAMPLE_S) -> int:
    """The CPUs that this process may use without those that others use now, rounded; at least 1.

    All that it may use under SLURM and torchrun, which have given them to it and where the other processes are its own ranks, under a
    quota (the counters are of whole CPUs), and where the system does not say.  sample_s: seconds for which use is measured."""
    allowed = count_allowed_cpus()
    shared_out = "SLURM_JOB_ID" in os.environ or launcher.local_ranks() > 1 or allowed != count_affine_cpus()
    if allowed == 1 or shared_out:
        return allowed
    return max(1, allowed - round(measure_other_use(sample_s)))


def measure_other_use(sample_s: float, counters: Path = CPU_COUNTERS) -> float:
    """CPUs' worth of time that other processes take on the CPUs of this one; 0.0 where it cannot be read."""
    try:
        before, own, start = _read_busy_seconds(counters), time.process_time(), time.monotonic()
        time.sleep(sample_s)
        busy = _read_busy_seconds(counters) - before - (time.process_time() - own)
        return max(0.0, busy / (time.monotonic() - start))
    except (OSError, ValueError, IndexError, AttributeError):  # no such file, or no affinity: not Linux
        return 0.0


def _read_busy_seconds(counters: Path) -> float:
    """Seconds since the start of the system that the CPUs of this process were not idle, added up."""
    mine, ticks = {f"cpu{number}" for number in os.sched_getaffinity(0)}, 0
    for line in counters.read_text().splitlines():
        name, *fields = line.split()
        if name in mine:
            counts = [int(field) for field in fields[:8]]  # what follows, of guests, is part of the first two
            ticks += sum(counts) - sum(counts[field] for field in IDLE_FIELDS)
    return ticks / os.sysconf("SC_CLK_TCK")
