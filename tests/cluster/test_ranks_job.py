"""Two nodes with two processes each: after every failure that ends a job, the run continues by itself and ends with the same weights."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from encoders.runtime.files import sha256_file
from tests.cluster.test_pretrain_job import command, job_state, restarts, step_of, wait

pytestmark = pytest.mark.cluster
STEPS = 60
RECIPE = [
    "cxr_moco_tiny", "data.store=ranks.h5", "arch=test_resnet", "size=32", f"steps={STEPS}", "batch=32", "save_every=5", "log_every=1",
    "pictures=none", "watch.images=16",
]  # fmt: skip


@pytest.fixture(scope="module")
def home(site) -> Path:
    command(site, "encoders", "ingest", "phantom", "ranks.h5", "--patients", "60", "--size", "40", "--seed", "1")
    return Path(site["ISOGRAFT_HOME"])


@pytest.fixture(scope="module")
def uninterrupted(site, home) -> str:
    """The weights of an uninterrupted run of four processes that torchrun starts on this machine."""
    torchrun = Path(sys.executable).parent / "torchrun"
    command(site, "python", torchrun, "--standalone", "--nproc-per-node=4", "--no-python", "pretrain", "run", *RECIPE,
            "--name", "ranks_whole")  # fmt: skip
    return sha256_file(home / "zoo" / "ranks_whole" / "model.safetensors")


def submitted(site, name: str, *more: str) -> str:
    printed = command(site, "pretrain", "submit", *RECIPE, "--name", name, "--nodes", "2", "--procs", "2", *more)
    assert "4 process(es)" in printed
    return printed.split("submitted job ")[1].split()[0]


def processes(name: str, program: str) -> list[int]:
    """Ids of the processes of the run `name`, on any node: its ranks (program "python") or their launcher ("srun")."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if program in Path(words[0].decode()).name and name.encode() in words and b"run" in words:
            pids.append(int(folder.name))
    return sorted(pids)


def processes_on_node(root: Path, number: int) -> list[int]:
    """Ids of all processes of a node: its slurmd, its slurmstepd, and the ranks. They share the namespace of the host name."""
    slurmd = int((root / "run" / f"slurmd.n{number}.pid").read_text())
    own, pids = os.readlink(f"/proc/{slurmd}/ns/uts"), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(folder / "ns" / "uts") == own:
                pids.append(int(folder.name))
        except OSError:
            continue  # the process has ended
    return pids


def logged_steps(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]


def start_node(site, number: int) -> None:
    """Starts the slurmd of a node that has none."""
    root = Path(site["SLURM_CONF"]).parent.parent
    subprocess.run(["bash", Path(__file__).parent / "node.sh", root, str(number)], check=True, env=site)


def restarted(site, home, name: str, job: str, times: int) -> None:
    wait(lambda: restarts(site, job) == times, 120, f"restart {times}")
    saved = step_of(home / "runs" / name)
    wait(lambda: step_of(home / "runs" / name) > saved + 5 or job_state(site, job) == "COMPLETED", 240, "the run to continue")


def finished_like(site, home, name: str, job: str, weights: str) -> str:
    """Waits for the end of the job, and asserts these weights, every step logged once, and one W&B run. Returns the job's log."""
    wait(lambda: job_state(site, job) in {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}, 300, "the end of the job")
    run = home / "runs" / name
    log = next(run.glob("slurm-*.out")).read_text()
    assert job_state(site, job) == "COMPLETED", log
    assert sha256_file(home / "zoo" / name / "model.safetensors") == weights
    assert logged_steps(run) == list(range(1, STEPS + 1))  # steps lost by a kill are logged once, when they are repeated
    parts = {path.name.split("-")[3] for path in (run / "wandb").glob("offline-run-*")}
    assert parts == {json.loads((run / "run.json").read_text())["wandb"]}
    return log


@pytest.fixture(scope="module")
def limited(site, home) -> str:
    """The job of a run that is suspended before its time limit, so that steps are left when SLURM sends its signal.

    SLURM counts in minutes and may signal up to a minute early. The other job runs in the meantime.
    """
    job = submitted(site, "limit", "--time", "2", "--signal-s", "30")
    wait(lambda: step_of(home / "runs" / "limit") >= 7, 240, "the seventh step")
    ranks = processes("limit", "python")
    assert len(ranks) == 4
    for pid in ranks:
        os.kill(pid, signal.SIGSTOP)
    return job


def test_a_run_survives_the_death_of_a_daemon_of_a_rank_of_the_launcher_and_of_a_node(site, home, uninterrupted, limited, tmp_path):
    job = submitted(site, "ranks", "--stage", str(tmp_path / "disk"))
    root, run = Path(site["SLURM_CONF"]).parent.parent, home / "runs" / "ranks"
    wait(lambda: step_of(run) >= 7, 240, "the seventh step")
    assert [path.read_bytes() for path in (tmp_path / "disk").iterdir()] == [(home / "ranks.h5").read_bytes()]

    # only the slurmd of a node dies: the slurmstepd of the job live on, and a new slurmd finds them
    os.kill(int((root / "run" / "slurmd.n2.pid").read_text()), signal.SIGKILL)
    seen = step_of(run)
    wait(lambda: step_of(run) > seen, 120, "a step without the daemon")
    start_node(site, 2)
    assert restarts(site, job) == 0

    os.kill(processes("ranks", "python")[-1], signal.SIGKILL)
    restarted(site, home, "ranks", job, 1)
    os.kill(processes("ranks", "srun")[0], signal.SIGKILL)
    restarted(site, home, "ranks", job, 2)

    # SLURM requeues the job. The signal by which `srun` ends the third start may reach the lost node a minute later, in the next start.
    for pid in processes_on_node(root, 2):
        os.kill(pid, signal.SIGKILL)
    wait(lambda: restarts(site, job) >= 3, 120, "the restart after the loss of the node")
    start_node(site, 2)
    assert finished_like(site, home, "ranks", job, uninterrupted).count("a process was killed") >= 2


def test_a_run_saves_at_its_time_limit_and_continues(site, home, uninterrupted, limited):
    assert "SIGUSR1, saved at step" in finished_like(site, home, "limit", limited, uninterrupted)
    assert restarts(site, limited) >= 1
