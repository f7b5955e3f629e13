"""What the job script does when its step ends: it requeues the job or exits. With stand-ins for SLURM's commands."""

import os
import signal
import subprocess

import pytest

from encoders.runtime import slurm

STAND_INS = {
    "srun": 'if [ -n "$SAVES" ]; then mkdir -p "$DISK" && touch "$DISK/$SAVES.pt"; fi; exit "$ENDS"',
    "scontrol": 'if [ "$1 $2" = "show job" ]; then echo "JobId=7 JobState=$STATE Restarts=0"; else echo n1; fi',
    "sleep": 'kill -TERM "$PPID"',  # after `scontrol requeue` SLURM ends the script
}


@pytest.fixture
def start(tmp_path):
    """Runs the script once. Returns "queue" if it requeued the job, else its exit status."""
    (tmp_path / "bin").mkdir()
    for name, body in STAND_INS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "job.sbatch").write_text(slurm.read_template("pretrain.sbatch"))

    def run(restart: int, ends: int, saves: str = "", state: str = "RUNNING") -> str | int:
        env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "ISOGRAFT_HOME": str(tmp_path), "SLURM_JOB_ID": "7",
               "SLURM_JOB_NODELIST": "n1", "SLURM_RESTART_COUNT": str(restart), "STATE": state, "ENDS": str(ends), "SAVES": saves,
               "DISK": str(tmp_path / "runs" / "r" / "checkpoints")}  # fmt: skip
        done = subprocess.run(["bash", tmp_path / "job.sbatch", "r", "cxr_moco"], env=env, capture_output=True, text=True, timeout=30)
        return "queue" if done.returncode == -signal.SIGTERM and "back into the queue" in done.stdout else done.returncode

    return run


def test_a_start_killed_before_its_first_checkpoint_is_requeued_at_most_twice(start):
    assert [start(restart, 143) for restart in range(3)] == ["queue", "queue", 143]
    assert start(0, 143) == "queue"  # a resubmitted job counts from zero


def test_a_checkpoint_between_two_kills_resets_the_count(start):
    assert [start(n, 137, f"step-{n:09d}") for n in range(5)] == ["queue"] * 5
    assert [start(n, 137) for n in (5, 6)] == ["queue", 137]


def test_a_job_that_was_not_killed_or_is_cancelled_is_not_requeued(start):
    assert [start(0, 0), start(0, 2), start(0, 3, "step-000000005")] == [0, 2, 3]
    assert start(0, 143, state="CANCELLED") == 143


def test_the_restarts_are_bounded(start):
    assert start(19, 137, "step-000000001") == "queue"
    assert start(20, 137, "step-000000002") == 1
