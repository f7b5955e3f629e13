"""Pretraining under a real SLURM: a signalled job saves, requeues itself, and ends with the weights of an uninterrupted run."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from encoders.runtime.files import sha256_file

pytestmark = pytest.mark.cluster
STEPS = 120
RECIPE = [
    "cxr_moco_tiny",
    "data.store=cxr.h5",
    "arch=test_resnet",
    "size=32",
    f"steps={STEPS}",
    "batch=64",
    "save_every=20",
    "log_every=1",
    "watch.images=16",
]


def command(env, *words, check=True):
    done = subprocess.run([str(w) for w in words], env=env, cwd=env["ISOGRAFT_HOME"], capture_output=True, text=True, timeout=300)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait(condition, seconds: float, what: str):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.5)
    pytest.fail(f"waited {seconds} s for {what}")


def step_of(run: Path) -> int:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return max((json.loads(line).get("step", 0) for line in lines[:-1]), default=0)


def job_state(env, job: str) -> str:
    return command(env, "scontrol", "show", "job", job).split("JobState=")[1].split()[0]


def restarts(env, job: str) -> int:
    return int(command(env, "scontrol", "show", "job", job).split("Restarts=")[1].split()[0])


@pytest.fixture(scope="module")
def store(site) -> Path:
    """Unlabeled images in the working folder."""
    command(site, "encoders", "ingest", "phantom", "cxr.h5", "--patients", "60", "--size", "40", "--seed", "1")
    return Path(site["ISOGRAFT_HOME"]) / "cxr.h5"


@pytest.fixture(scope="module")
def uninterrupted(site, store) -> Path:
    """The weights of the same recipe without SLURM and without interruption."""
    command(site, "pretrain", "run", *RECIPE, "--name", "whole")
    return store.parent / "zoo" / "whole" / "model.safetensors"


def test_a_signalled_job_requeues_itself_and_ends_with_the_weights_of_an_uninterrupted_run(site, uninterrupted):
    home = Path(site["ISOGRAFT_HOME"])
    printed = command(site, "pretrain", "submit", *RECIPE, "--name", "job")
    job = printed.split("submitted job ")[1].split()[0]
    wait(lambda: step_of(home / "runs" / "job") >= 10, 240, "the job's tenth step")
    command(site, "scancel", "--signal=USR1", job)
    wait(lambda: restarts(site, job) == 1, 120, "the requeue")
    wait(lambda: job_state(site, job) in {"COMPLETED", "FAILED", "CANCELLED"}, 400, "the end of the job")
    log = next((home / "runs" / "job").glob("slurm-*.out")).read_text()
    assert job_state(site, job) == "COMPLETED", log
    assert "back into the queue" in log
    assert sha256_file(home / "zoo" / "job" / "model.safetensors") == sha256_file(uninterrupted)
    steps = [json.loads(line)["step"] for line in (home / "runs" / "job" / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
    assert steps == list(range(1, STEPS + 1))  # every step once
    info = json.loads((home / "runs" / "job" / "run.json").read_text())
    assert job in json.dumps(info)
    parts = sorted(p.name for p in (home / "runs" / "job" / "wandb").glob("offline-run-*"))
    assert len(parts) == 2  # one part per start; `wandb sync` joins them because they have the same id
    assert {name.rsplit("-", 1)[1] for name in parts} == {info["wandb"]}
    status = command(site, "pretrain", "status", "job")
    assert "COMPLETED" in status
    assert f"{STEPS}/{STEPS}" in status


def test_a_cancelled_job_stays_cancelled(site, store):
    printed = command(site, "pretrain", "submit", *RECIPE, "--name", "stopped")
    job = printed.split("submitted job ")[1].split()[0]
    wait(lambda: step_of(Path(site["ISOGRAFT_HOME"]) / "runs" / "stopped") >= 5, 240, "the job's fifth step")
    assert "running" in command(site, "pretrain", "status", "stopped")
    assert command(site, "pretrain", "cancel", "stopped") == f"cancelled job {job} of run stopped\n"
    wait(lambda: job_state(site, job) == "CANCELLED", 30, "the cancellation")
    time.sleep(8)  # longer than a requeued job waits before it starts again
    assert job_state(site, job) == "CANCELLED"
    assert restarts(site, job) == 0


def test_a_job_that_fails_in_its_set_up_is_listed_with_the_end_of_its_log(site, store):
    printed = command(site, "pretrain", "submit", *RECIPE, "--name", "broken", "--setup", "load_no_such_module cuda")
    job = printed.split("submitted job ")[1].split()[0]
    wait(lambda: job_state(site, job) == "FAILED", 60, "the failure")
    status = command(site, "pretrain", "status")
    assert f"{job} FAILED (exit status 127)" in status
    assert "load_no_such_module: command not found" in status
    assert "load_no_such_module: command not found" in command(site, "pretrain", "logs", "broken", "-f")


def test_an_error_is_found_before_the_job_is_submitted(site):
    done = subprocess.run(
        ["pretrain", "submit", "cxr_moco_tiny", "data.store=none.h5"], env=site, cwd=site["ISOGRAFT_HOME"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "none.h5" in done.stderr
