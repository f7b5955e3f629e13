"""How many CPUs this process may use: the machine may have more."""

import os
from pathlib import Path

from encoders.runtime import launcher

CGROUP, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def count_allowed_cpus() -> int:
    """CPUs of this process, at least 1: the fewest of its affinity, its cgroup's quota and SLURM_CPUS_PER_TASK.

    What the processes on a node share is divided among them: everything under torchrun; under srun the quota, and the affinity unless
    srun binds each task to CPUs of its own."""
    ranks, per_task = launcher.local_ranks(), _integer("SLURM_CPUS_PER_TASK")
    affinity, quota = count_affine_cpus(), cgroup_quota()
    if launcher.is_srun_task():
        bound = per_task is not None or affinity < (_integer("SLURM_CPUS_ON_NODE") or 0)
        limits = [affinity if bound else affinity // ranks, per_task, quota and quota / ranks]
    else:
        limits = [value and value / ranks for value in (affinity, per_task, quota)]
    return max(1, int(min(value for value in limits if value is not None)))


def count_affine_cpus() -> int:
    """CPUs that the operating system may run this process on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cgroup_quota(root: Path = CGROUP, membership: Path = MEMBERSHIP) -> float | None:
    """CPUs' worth of time that the control groups of this process grant; None without a limit, or where it cannot be read."""
    try:
        if not (root / "cgroup.controllers").exists():  # version 1
            quota, period = (int((root / "cpu" / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
            return quota / period if quota > 0 else None
        own = next(line.partition("::")[2] for line in membership.read_text().splitlines() if line.startswith("0::"))
        group = root / own.strip("/")
        limits = [_read_cpu_max(folder / "cpu.max") for folder in (group, *group.parents) if folder.is_relative_to(root)]
        return min((limit for limit in limits if limit is not None), default=None)
    except (OSError, ValueError, StopIteration):
        return None


def _read_cpu_max(path: Path) -> float | None:
    """`150000 100000` as 1.5; None for `max`, and for the root group, which has no such file."""
    quota, period = path.read_text().split() if path.exists() else ("max", "1")
    return None if quota == "max" else int(quota) / int(period)


def _integer(name: str) -> int | None:
    """An environment variable as an integer; None if it is missing or no number."""
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else None
