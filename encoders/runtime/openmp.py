"""How long a waiting OpenMP thread spins before it sleeps: briefly, so that our commands share a machine with other work.

PyTorch's CPU operations end with all threads waiting for the slowest one. libgomp, which PyTorch's wheels for Linux contain (as do those of
faiss and scikit-learn), lets them spin for 300,000 rounds, some milliseconds. If another process holds one of the CPUs, the waiting threads
burn the time that the slowest one needs: two threads become several times slower than one. tests/perf/waiting_threads.py measures it, and
docs/performance.md has the numbers.

libgomp reads its variables once, when it is loaded: they are set before torch is imported. Processes that are started later inherit them.
"""

import os
from collections.abc import MutableMapping

# libgomp: rounds before a thread sleeps. libiomp and libomp (conda, macOS): milliseconds, 200 by default.
BOUNDED_SPIN = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
# A user who sets one of these has decided how threads wait, or has given them CPUs of their own.
USER_CHOICES = (
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "KMP_BLOCKTIME",
    "KMP_LIBRARY",
    "OMP_PROC_BIND",
    "OMP_PLACES",
    "GOMP_CPU_AFFINITY",
    "KMP_AFFINITY",
)


def bound_spinning(environment: MutableMapping[str, str] | None = None) -> bool:
    """Makes waiting OpenMP threads sleep after a short spin; returns whether it did. Does nothing if the user chose how they wait.

    environment: of this process, if None. OMP_NUM_THREADS, which `torchrun` and the job templates set, is no such choice."""
    environment = os.environ if environment is None else environment
    if any(environment.get(name) for name in USER_CHOICES):
        return False
    environment.update(BOUNDED_SPIN)
    return True
