"""The end of a log file."""

import re
from pathlib import Path

TAIL_BYTES = 16 << 10  # bytes at the end of a log that are read


def read_log_tail(log: Path, count: int = 10, end: int | None = None) -> list[str]:
    """The last `count` lines that are not empty; [] for a log that does not exist. A progress bar leaves its last state.

    end: bytes of the file that are looked at; all by default."""
    if not log.is_file():
        return []
    end = log.stat().st_size if end is None else end
    with log.open("rb") as file:
        file.seek(max(0, end - TAIL_BYTES))
        text = file.read(end - file.tell()).decode(errors="replace")
    lines = (line.rstrip().rpartition("\r")[2] for line in text.split("\n"))
    return [line for line in lines if line.strip()][-count:] if count > 0 else []


def read_failure_reason(log: Path) -> str:
    """The reason of a failure, from the end of a log: the last `error:` line, otherwise the last line; "" without one."""
    lines = [line.strip() for line in read_log_tail(log, TAIL_BYTES)]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or [""])[-1]


def find_newest_log(folder: Path, pattern: str = "slurm-*.out") -> Path | None:
    """The log of the newest job in a folder; None without one. By the number of the job, as the clock may have been set back."""
    return max(folder.glob(pattern), key=_job_of_log, default=None)


def _job_of_log(path: Path) -> tuple[list[int], float]:
    """The numbers in the name of a log, and when it was written."""
    return [int(number) for number in re.findall(r"\d+", path.stem)], path.stat().st_mtime
