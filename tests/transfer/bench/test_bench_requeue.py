"""What the job script of a benchmark does near its time limit: it requeues its array task. With stand-ins for SLURM's commands."""

import os
import signal
import subprocess

import pytest

from encoders.runtime import slurm
from encoders.runtime.slurm_site import Site
from transfer.bench.bench_folder import BenchFolder
from transfer.bench.slurm_array import render_scripts

STAND_INS = {
    # of the step: the signal of the time limit goes to the script, then a result is finished or not, and the step goes on or ends
    "srun": 'if [ -n "$LIMIT" ]; then read -r _ _ _ script _ < "/proc/$PPID/stat"; kill -USR1 "$script"; fi; '
    'while [ -n "$HANGS" ]; do [ ! -e "$DISK/requeued" ] || exit; /bin/sleep .02; done; '
    'echo "$CELL" > "$DISK/status/0"; exit "$ENDS"',
    "scontrol": 'if [ "$1" = show ]; then echo "JobId=7 JobState=$STATE Restarts=0"; else echo "$*" >> "$DISK/requeued"; fi',
    "sleep": 'kill -TERM "$PPID"',  # after `scontrol requeue` SLURM ends the script
}


@pytest.fixture
def start(tmp_path):
    """Runs the script once. Returns "queue" if it requeued its array task, else its exit status."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "records" / "t").mkdir(parents=True)
    for name, body in STAND_INS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "job.sbatch").write_text(slurm.read_template("bench.sbatch"))
    (tmp_path / "cells.txt").write_text("--encoder a\n")

    def run(restart=0, limit=True, results=0, state="RUNNING", ends=None):
        """ends: the exit status of the step; None: it hangs until the task is requeued."""
        for i in range(results):
            (tmp_path / "records" / "t" / f"{i}.json").touch()
        env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "ISOGRAFT_HOME": str(tmp_path), "SLURM_JOB_ID": "9",
               "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0", "SLURM_JOB_NODELIST": "n1", "SLURM_RESTART_COUNT": str(restart),
               "STATE": state, "ENDS": str(ends), "CELL": str(ends), "LIMIT": "yes" if limit else "",
               "HANGS": "yes" if ends is None else "", "DISK": str(tmp_path)}  # fmt: skip
        (tmp_path / "status").mkdir(exist_ok=True)
        command = ["bash", tmp_path / "job.sbatch", tmp_path / "cells.txt", tmp_path / "status"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
        requeued = done.returncode == -signal.SIGTERM and "back into the queue" in done.stdout
        assert requeued == (tmp_path / "requeued").exists()
        (tmp_path / "requeued").unlink(missing_ok=True)
        return "queue" if requeued else done.returncode

    return run


def test_a_task_at_its_time_limit_is_requeued_while_results_are_finished(start, tmp_path):
    assert [start(0), start(1, results=1), start(2, results=3)] == ["queue"] * 3
    assert not (tmp_path / "status" / "0").exists()  # it has not ended
    assert start(3, results=3, ends=1) == 1  # nothing was finished since the last start
    assert (tmp_path / "status" / "0").read_text() == "1\n"


def test_a_task_is_requeued_while_its_training_goes_on(start, tmp_path):
    state = tmp_path / ".isograft" / "cache" / "trainings" / "0123" / "trial-004.pt"
    state.parent.mkdir(parents=True)
    state.touch()
    assert start(0) == "queue"
    os.utime(state, (2e9, 2e9))  # the training has validated
    assert start(1) == "queue"
    assert start(2, ends=1) == 1


def test_a_task_that_ends_in_time_is_not_requeued(start, tmp_path):
    assert [start(limit=False, ends=0), start(limit=False, ends=3)] == [0, 3]
    assert (tmp_path / "status" / "0").read_text() == "3\n"


def test_a_cancelled_task_and_one_restarted_too_often_are_not_requeued(start):
    assert start(state="CANCELLED", ends=1) == 1
    assert start(20, results=5, ends=1) == 1


def test_the_signal_goes_to_the_script_of_a_benchmark_whatever_pretraining_gets(tmp_path):
    array, last = render_scripts(BenchFolder(tmp_path / "b"), ["t"], Site(signal_s=300), [])
    assert "#SBATCH --signal=B:USR1@60\n" in array
    assert "--signal" not in last
