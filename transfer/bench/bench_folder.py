"""The folder of a submitted benchmark, and the states of its elements.

`benches/<name>/` holds `cells.txt` (one command per line, in the order of the array), the two scripts, the logs, `status/<i>` (the exit
status of a finished element), `jobs.txt`, and the table and report of the last job.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from encoders.runtime import paths, slurm_jobs
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.files import read_json
from encoders.runtime.log_tail import find_newest_log


class ElementState(NamedTuple):
    """One element of the array: its number, the arguments of its command, its state in words, and its log."""

    number: int
    command: str
    state: str
    log: Path | None
    failed: bool


@dataclass(frozen=True)
class BenchFolder:
    """The files of a submitted benchmark."""

    path: Path

    @property
    def commands_file(self) -> Path:
        """One command per line."""
        return self.path / "cells.txt"

    @property
    def status_dir(self) -> Path:
        """One file per finished element with its exit status."""
        return self.path / "status"

    @property
    def info_file(self) -> Path:
        """Tasks, number of elements and job ids, JSON."""
        return self.path / "bench.json"

    def commands(self) -> list[list[str]]:
        """The arguments of each element."""
        return [shlex.split(line) for line in self.commands_file.read_text().splitlines()]

    def exit_status(self, element: int) -> int | None:
        """The exit status of an element; None while it has not finished."""
        try:
            return int((self.status_dir / str(element)).read_text())
        except (FileNotFoundError, ValueError):
            return None


def bench_folder(name: str) -> BenchFolder:
    """The folder of a bench. Raises InputError for a name that is not a file name."""
    if not name or name != Path(name).name or name.startswith("."):
        raise InputError(f"{name!r} cannot be the name of a bench; use letters, digits, - and _")
    return BenchFolder(paths.benches_dir() / name)


def find_bench_folder(name: str) -> BenchFolder:
    """The folder of a submitted bench. Raises InputError naming the nearest names."""
    folder = bench_folder(name)
    if not folder.info_file.is_file():
        known = [p.parent.name for p in sorted(paths.benches_dir().glob("*/bench.json"))]
        raise unknown_name_error("submitted bench", name, known, f"They are in {paths.benches_dir()}.")
    return folder


def list_bench_folders() -> list[BenchFolder]:
    """Every submitted bench, by name."""
    return [BenchFolder(path.parent) for path in sorted(paths.benches_dir().glob("*/bench.json"))]


def list_unfinished(folder: BenchFolder) -> list[int]:
    """The elements without exit status 0."""
    return [i for i in range(len(folder.commands())) if folder.exit_status(i) != 0]


def list_elements(folder: BenchFolder) -> list[ElementState]:
    """The state of each element. One that ended without an exit status failed before its command: in a set-up line, or with its node."""
    array = str(read_json(folder.info_file).get("array", ""))
    commands = folder.commands()
    waiting = any(folder.exit_status(i) is None for i in range(len(commands)))
    states = slurm_jobs.array_states(array) if array and waiting else {}
    rows = []
    for i, arguments in enumerate(commands):
        code = folder.exit_status(i)
        log = find_newest_log(folder.path, f"slurm-*_{i}.out")
        if code is not None:
            text, failed = ("done", False) if code == 0 else (f"failed ({code})", True)
        else:
            job = states.get(i) or slurm_jobs.job_state(f"{array}_{i}")
            text, failed = job.describe().lower() or "not ended", job.has_ended_badly
            log = log or (job.log if failed and job.log and job.log.is_file() else None)
        rows.append(ElementState(i, shlex.join(arguments), text, log, failed))
    return rows


def describe_last_job(folder: BenchFolder) -> str:
    """The job that compares the results, in words; "" before it was submitted."""
    job = str(read_json(folder.info_file).get("compare", ""))
    return f"{job} {slurm_jobs.job_state(job).describe()}".strip() if job else ""
