"""The state of SLURM jobs, and the jobs of a folder.

The controller is asked first (`scontrol`); it forgets a job some minutes after its end, and the accounting database (`sacct`) then knows it
where a cluster has one.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from encoders.runtime.line_file import append_line

ACTIVE_STATES = {"PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "COMPLETING", "REQUEUED", "REQUEUE_HOLD"}
RECORDED_JOB = re.compile(rb"(\d{1,18}(?:_\d{1,18})?)[ \r\n]")  # the start of a line of jobs.txt
QUERY_TIMEOUT_S = 20.0  # a controller that is down answers after minutes


@dataclass(frozen=True)
class JobState:
    """A job, or an element of an array, as SLURM knows it."""

    job: str
    state: str = ""  # PENDING, RUNNING, FAILED, ...; "" if SLURM does not know the job or is not installed
    reason: str = ""  # why a pending job waits: Priority, Resources, ...
    restarts: int = 0
    exit_status: int = 0
    log: Path | None = None
    preempted: bool = False  # by another job, since its last start

    @property
    def is_active(self) -> bool:
        """Whether the job waits or runs."""
        return self.state in ACTIVE_STATES

    @property
    def has_ended_badly(self) -> bool:
        """Whether the job ended otherwise than with status 0."""
        return bool(self.state) and not self.is_active and self.state != "COMPLETED"

    def describe(self) -> str:
        """State and what explains it, e.g. `PENDING (Resources), requeued 2 times`; "" if SLURM does not know the job."""
        text = self.state
        if self.state == "PENDING" and self.reason:
            text += f" ({self.reason})"
        if self.state == "FAILED" and self.exit_status:
            text += f" (exit status {self.exit_status})"
        times = {0: "", 1: ", requeued once"}.get(self.restarts, f", requeued {self.restarts} times")
        return text + times if text else ""


def own_job_id() -> str | None:
    """The job that this process belongs to, `<array>_<element>` for an element of an array; None outside SLURM.

    The variable SLURM_JOB_ID of one element is the id of the whole array."""
    array, element = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{element}" if array and element else os.environ.get("SLURM_JOB_ID")


def job_order(job: str) -> tuple[int, ...]:
    """What sorts ids of jobs by their age: 9, 10, 12_0, 12_1."""
    return tuple(int(number) if number.isdecimal() else 0 for number in job.split("_"))


def job_state(job: str) -> JobState:
    """A job by its id, or an element of an array by `<job>_<element>`."""
    found = next(_ask_controller(job), None)
    return found[1] if found else _ask_accounting(job)


def array_states(job: str) -> dict[int, JobState]:
    """The elements of an array that the controller knows, by their number, with one question."""
    states: dict[int, JobState] = {}
    for elements, state in _ask_controller(job):
        states |= dict.fromkeys(_read_element_numbers(elements), state)
    return states


def record_job(folder: Path, job: str) -> None:
    """Appends a job to `folder/jobs.txt`. Raises StorageError, which names the job, when the disk is full: the job is submitted by then."""
    with (folder / "jobs.txt").open("ab", buffering=0) as file:
        append_line(file, f"{job} {time.strftime('%Y-%m-%dT%H:%M:%S')}", f"the number of the submitted job, {job},")


def list_jobs(folder: Path) -> list[str]:
    """The ids of the jobs recorded in a folder, oldest first; a line that is damaged or was not written to its end names none."""
    path = folder / "jobs.txt"
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    return [found[1].decode() for line in lines if (found := RECORDED_JOB.match(line)) is not None]


def find_active_job(folder: Path) -> str | None:
    """The newest job recorded in a folder that has not ended."""
    return next((job for job in reversed(list_jobs(folder)) if job_state(job).is_active), None)


def cancel_job(job: str) -> str:
    """Cancels a job; returns what SLURM said against it, "" if it was cancelled."""
    done = subprocess.run(["scancel", job], capture_output=True, text=True)
    return (done.stderr.strip() or f"scancel ended with status {done.returncode}") if done.returncode else ""


def _ask_controller(job: str) -> Iterator[tuple[str, JobState]]:
    """(array elements or "", state) of a job's records; nothing if the controller does not know it."""
    for line in _query("scontrol", "show", "job", job, "--oneliner").splitlines():
        if not (state := _read_field(line, "JobState")):
            continue
        reason, log = _read_field(line, "Reason"), _read_field(line, "StdOut")
        yield (
            _read_field(line, "ArrayTaskId"),
            JobState(
                job,
                state,
                "" if reason == "None" else reason.replace("_", " "),
                int(_read_field(line, "Restarts") or 0),
                int(_read_field(line, "ExitCode").partition(":")[0] or 0),
                Path(log) if log else None,
                _read_field(line, "PreemptTime") not in ("", "None", "Unknown"),
            ),
        )


def _ask_accounting(job: str) -> JobState:
    out = _query("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}", "--format=State,ExitCode")
    state, _, code = (out.splitlines() or [""])[-1].partition("|")
    return JobState(job, state.split(" ")[0], exit_status=int(code.partition(":")[0] or 0))  # "CANCELLED by 1000"


def _query(*command: str) -> str:
    """What a command of SLURM prints; "" if it is not installed, fails or does not answer."""
    if not shutil.which(command[0]):
        return ""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=QUERY_TIMEOUT_S).stdout
    except subprocess.TimeoutExpired:
        return ""


def _read_field(line: str, name: str) -> str:
    """The value of `name=` in a line of `scontrol --oneliner`; it ends before the next `Name=`, because paths may hold spaces."""
    match = re.search(rf"(?:^| ){name}=(.*?)(?= \w+(?::\w+)*=|$)", line)
    return match.group(1).strip() if match else ""


def _read_element_numbers(text: str) -> list[int]:
    """The numbers of `0-3,7%4`, as SLURM writes the elements of an array that wait together."""
    numbers: list[int] = []
    for part in text.partition("%")[0].split(","):
        first, _, last = part.partition("-")
        if first.isdecimal():
            numbers.extend(range(int(first), int(last or first) + 1))
    return numbers
