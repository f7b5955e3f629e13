"""The folder of a submitted benchmark, and the states of its cells.

`benches/<name>/` holds `cells.txt` (the arguments of one `transfer bench` per line), `array.txt` (the numbers of the cells of one array
task per line), the two scripts, the logs, `status/<cell>` (exit status, and below it the reason of a failure), `status/<cell>.records` (the
records of cells that were computed together), `jobs.txt`, and the table and report of the last job, which are of these records. A folder of
an earlier version has no `array.txt`: each cell is an array task.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from encoders.runtime import paths, slurm_jobs
from encoders.runtime.entry_names import check_entry_name
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.files import atomic_write, read_json
from encoders.runtime.log_tail import find_newest_log, read_failure_reason
from encoders.runtime.slurm_jobs import JobState


class SubmittedCell(NamedTuple):
    """One cell: its number, the arguments of its command, its array task, its state in words, the log, and the reason of a failure."""

    number: int
    command: str
    task: int
    state: str
    log: Path | None
    failed: bool
    reason: str = ""


@dataclass(frozen=True)
class BenchFolder:
    """The files of a submitted benchmark."""

    path: Path

    @property
    def commands_file(self) -> Path:
        """One command per line."""
        return self.path / "cells.txt"

    @property
    def array_file(self) -> Path:
        """The numbers of the cells of one array task per line."""
        return self.path / "array.txt"

    @property
    def status_dir(self) -> Path:
        """One file per finished cell with its exit status."""
        return self.path / "status"

    @property
    def info_file(self) -> Path:
        """Tasks, number of cells and job ids, JSON."""
        return self.path / "bench.json"

    @property
    def study_file(self) -> Path:
        """The study whose cells these are; a benchmark that is none has no such file."""
        return self.path / "study.yaml"

    def commands(self) -> list[list[str]]:
        """The arguments of each cell."""
        return [shlex.split(line) for line in self.commands_file.read_text().splitlines()]

    def array_tasks(self) -> list[list[int]]:
        """The numbers of the cells of each array task."""
        if not self.array_file.is_file():
            return [[i] for i in range(len(self.commands()))]
        return [[int(number) for number in line.split()] for line in self.array_file.read_text().splitlines()]

    def list_records(self) -> list[Path]:
        """The record files of its cells. Raises InputError if there are none."""
        lists = sorted(self.status_dir.glob("*.records"))
        names = dict.fromkeys(name for listed in lists for name in listed.read_text().splitlines())
        found = [path for name in names if (path := paths.records_dir() / name).is_file()]
        if not found:
            raise InputError(
                f"bench {self.path.name!r} has no record; `transfer jobs {self.path.name}` states why, `--task` takes all of a task"
            )
        return found

    def exit_status(self, cell: int) -> int | None:
        """The exit status of a cell; None while it has not finished."""
        return read_status(self.status_dir, cell)


def read_status(status_dir: Path, cell: int) -> int | None:
    """The exit status of a cell; None while it has not finished."""
    try:
        return int((status_dir / str(cell)).read_text().splitlines()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return None


def write_status(status_dir: Path, cell: int, status: int, reason: str = "") -> None:
    """Records that a cell has finished.  reason: of a failure."""
    with atomic_write(status_dir / str(cell)) as part:
        part.write_text(f"{status}\n" + (f"{' '.join(reason.split())}\n" if reason else ""))


def write_record_names(status_dir: Path, cell: int, names: Sequence[str]) -> None:
    """Keeps which records belong to a cell and those that were computed with it.  names: relative to the folder of records."""
    with atomic_write(status_dir / f"{cell}.records") as part:
        part.write_text("".join(f"{name}\n" for name in names))


def running_mark(status_dir: Path, cell: int) -> Path:
    """The file that exists while the cell is computed; one that was killed leaves it behind."""
    return status_dir / f"{cell}.running"


def bench_folder(name: str) -> BenchFolder:
    """The folder of a bench. Raises InputError for a name that no bench may have."""
    return BenchFolder(paths.benches_dir() / check_entry_name("bench", name))


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
    """The array tasks with a cell whose exit status is not 0."""
    return [i for i, cells in enumerate(folder.array_tasks()) if any(folder.exit_status(cell) != 0 for cell in cells)]


def list_submitted_cells(folder: BenchFolder) -> list[SubmittedCell]:
    """The state of each cell. One that ended without an exit status failed before its command: with its node, for example."""
    array = str(read_json(folder.info_file).get("array", ""))
    commands, groups = folder.commands(), folder.array_tasks()
    open_tasks = list_unfinished(folder)
    states = slurm_jobs.array_states(array) if array and open_tasks else {}
    rows: list[SubmittedCell] = []
    for task, cells in enumerate(groups):
        job = (states.get(task) or slurm_jobs.job_state(f"{array}_{task}")) if task in open_tasks else JobState("")
        log = find_newest_log(folder.path, f"slurm-*_{task}.out")
        if log is None and job.has_ended_badly and job.log is not None and job.log.is_file():
            log = job.log
        rows += [_describe_cell(folder, cell, commands[cell], task, job, log, cells) for cell in cells]
    return sorted(rows)


def _describe_cell(
    folder: BenchFolder, cell: int, command: Sequence[str], task: int, job: JobState, log: Path | None, cells: Sequence[int]
) -> SubmittedCell:
    """The state of a cell.  job, log: of its array task, which has these cells."""
    words, code = shlex.join(command), folder.exit_status(cell)
    if code == 0:
        return SubmittedCell(cell, words, task, "done", log, False)
    if code is not None and (not job.is_active or job.state == "RUNNING"):  # one that waits again will be computed again
        lines = (folder.status_dir / str(cell)).read_text().splitlines()
        reason = lines[1] if len(lines) > 1 else read_failure_reason(log) if log else ""
        return SubmittedCell(cell, words, task, f"failed ({code})", log, True, reason)
    state = job.describe().lower() or "not ended"
    if job.state == "RUNNING" and len(cells) > 1 and not running_mark(folder.status_dir, cell).exists():
        state = "after other cells of its array task"
    reason = read_failure_reason(log) if log and job.has_ended_badly else ""
    return SubmittedCell(cell, words, task, state, log, job.has_ended_badly, reason)


def describe_last_job(folder: BenchFolder) -> str:
    """The job that compares the results, in words; "" before it was submitted."""
    job = str(read_json(folder.info_file).get("compare", ""))
    return f"{job} {slurm_jobs.job_state(job).describe()}".strip() if job else ""
