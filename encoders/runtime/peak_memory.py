"""Memory of this process and of this machine, in GiB, as Linux reports it in /proc."""

import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_memory() -> float:
    """The most memory that this process has held (peak resident set).

    From VmHWM where there is /proc: `ru_maxrss` of a new process begins at the memory of the process that started it."""
    if STATUS.is_file():
        return _read_kib(STATUS, "VmHWM") / 2**20
    units = 2**30 if sys.platform == "darwin" else 2**20  # macOS counts in bytes, others in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / units


def reset_peak_memory() -> bool:
    """Sets the peak to the memory that the process holds now. Returns whether the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # 5: see proc_pid_clear_refs(5)
    except OSError:
        return False
    return True


def available_memory() -> float | None:
    """What new processes can take without swapping, within the limit of this process's control group; None where unknown."""
    if not Path("/proc/meminfo").is_file():
        return None
    free = _read_kib(Path("/proc/meminfo"), "MemAvailable") / 2**20
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")  # of a container or job, if it has a limit
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdigit():
        free = min(free, (int(text) - int(used.read_text())) / 2**30)
    return max(free, 0.0)


def _read_kib(file: Path, key: str) -> int:
    """The number of a line such as `VmHWM:   5321 kB`."""
    return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(f"{key}:"))
