"""A day on a cluster: a sweep of three seeds, of which one fails in its set-up and one is preempted, a benchmark after it, and its page.

`scontrol requeue` ends a running job as preemption with PreemptMode=REQUEUE does: SIGTERM, SIGKILL after KillWait, and back into the queue.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.test_pretrain_job import RECIPE, command, job_state, restarts, step_of, wait

pytestmark = pytest.mark.cluster
SWEEP = [*RECIPE, "--sweep", "seed=0,1,2", "--name", "day"]
BROKEN = '[ "$SLURM_ARRAY_TASK_ID" != 1 ] || load_no_such_module cuda'
ENDED = {"COMPLETED", "FAILED", "CANCELLED"}


@pytest.fixture(scope="module")
def home(site) -> Path:
    """Unlabeled images, and a task on other patients."""
    command(site, "encoders", "ingest", "phantom", "cxr.h5", "--patients", "60", "--size", "40", "--seed", "1")
    command(site, "encoders", "ingest", "phantom", "labeled.h5", "--patients", "60", "--size", "40", "--seed", "2")
    command(site, "transfer", "tasks", "add", "view", "labeled.h5", "--label", "view", "--positive", "AP")
    return Path(site["ISOGRAFT_HOME"])


def array_of(printed: str) -> str:
    return printed.split("submitted array ")[1].split()[0]


def last_job_of(printed: str) -> str:
    return printed.split(" and job ")[1].split(",")[0]


def read_wandb(run: Path) -> dict:
    """The newest offline part of a W&B run, as W&B's own reader prints it."""
    part = sorted(run.glob("wandb/offline-run-*"))[-1]
    words = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", "--summary", str(part)]
    return json.loads(subprocess.run(words, capture_output=True, text=True, check=True, cwd=run).stdout)


def test_a_sweep_with_a_failed_and_a_preempted_run_is_benchmarked_and_completed_later(site, home):
    printed = command(site, "pretrain", "submit", *SWEEP, "--at-once", "3", "--setup", BROKEN)
    array = array_of(printed)
    assert "3 runs: 3 to submit" in printed
    benched = command(
        site, "transfer", "submit", "--after", "day", "--task", "view", "--protocol", "knn", "--baseline", "none", "--name", "day"
    )
    preempted = f"{array}_2"
    wait(lambda: step_of(home / "runs" / "day_seed2") >= 10, 240, "the tenth step of seed 2")
    command(site, "scontrol", "requeue", preempted)
    wait(lambda: job_state(site, f"{array}_1") == "FAILED", 60, "the failure of seed 1")
    status = command(site, "pretrain", "status", "day")
    assert f"{array}_1 FAILED (exit status 127)" in status
    assert "load_no_such_module: command not found" in status
    assert "sweep day: 3 runs: " in status
    wait(lambda: job_state(site, last_job_of(benched)) in ENDED, 400, "the comparison")
    assert restarts(site, preempted) == 1
    assert [job_state(site, f"{array}_{i}") for i in range(3)] == ["COMPLETED", "FAILED", "COMPLETED"]
    assert {path.name for path in (home / "zoo").iterdir()} == {"day_seed0", "day_seed2"}
    logs = command(site, "pretrain", "logs", "day", "-f")  # ends, because all jobs have ended
    assert [line for line in logs.splitlines() if line.startswith("==> ")] == [f"==> day_seed{i} <==" for i in range(3)]

    # the benchmark of what there is, with the reason of what is missing
    jobs = subprocess.run(["transfer", "jobs", "day"], env=site, cwd=home, capture_output=True, text=True)
    assert jobs.returncode == 1
    assert "day_seed1" in jobs.stderr + jobs.stdout
    assert job_state(site, last_job_of(benched)) == "FAILED"
    table = (home / "benches" / "day" / "table.md").read_text()
    assert "day_seed0 and 1 more seed" in table  # the row of the recipe
    assert (home / "benches" / "day" / "report.html").stat().st_size > 10_000

    # one run in W&B for all starts of the preempted one, with its own seed
    run = home / "runs" / "day_seed2"
    parts = sorted(path.name for path in (run / "wandb").glob("offline-run-*"))
    assert len(parts) >= 2  # one for each start, and one if SIGTERM ended the service of W&B before the run
    assert {name.rsplit("-", 1)[1] for name in parts} == {json.loads((run / "run.json").read_text())["wandb"]}
    logged = read_wandb(run)
    assert logged["config"]["seed"] == 2
    assert read_wandb(home / "runs" / "day_seed0")["config"]["seed"] == 0

    # the same command again submits the failed run only, and the benchmark follows
    printed = command(site, "pretrain", "submit", *SWEEP)
    assert "3 runs: 1 to submit, 2 finished" in printed
    assert job_state(site, f"{array_of(printed)}_1") in {"PENDING", "RUNNING", "CONFIGURING"}
    rerun = command(site, "transfer", "submit", "--rerun", "--name", "day", "--after", "day")
    wait(lambda: job_state(site, last_job_of(rerun)) in ENDED, 400, "the comparison, again")
    assert job_state(site, last_job_of(rerun)) == "COMPLETED", "\n".join(p.read_text() for p in home.glob("benches/day/compare-*.out"))
    assert "day_seed0 and 2 more seeds" in (home / "benches" / "day" / "table.md").read_text()
    assert "sweep day: 3 runs: 3 finished" in command(site, "pretrain", "status", "day")
