"""Two nodes with two processes each, through everything that may end a job: the run goes on by itself and ends with the same weights."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from encoders.runtime.files import sha256_file
from tests.cluster.test_pretrain_job import command, job_state, restarts, step_of, wait

pytestmark = pytest.mark.cluster
STEPS = 40
RECIPE = [
    "cxr_moco_tiny", "data.store=ranks.h5", "arch=test_resnet", "size=32", f"steps={STEPS}", "batch=32", "save_every=5", "log_every=1",
    "pictures=none",
]  # fmt: skip


@pytest.fixture(scope="module")
def home(site) -> Path:
    command(site, "encoders", "ingest", "phantom", "ranks.h5", "--patients", "60", "--size", "40", "--seed", "1")
    return Path(site["ISOGRAFT_HOME"])


@pytest.fixture(scope="module")
def uninterrupted(site, home) -> str:
    """The weights of four processes that torchrun starts on this machine and nobody disturbs."""
    pretrain = Path(sys.executable).parent / "pretrain"
    command(site, sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4", pretrain, "run", *RECIPE,
            "--name", "ranks_whole")  # fmt: skip
    return sha256_file(home / "zoo" / "ranks_whole" / "model.safetensors")


def submitted(site, name: str) -> str:
    said = command(site, "pretrain", "submit", *RECIPE, "--name", name, "--nodes", "2", "--procs", "2")
    assert "4 process(es)" in said
    return said.split("submitted job ")[1].split()[0]


def processes(name: str, program: str) -> list[int]:
    """Processes of the run `name`: its ranks (program "python") or their launcher ("srun"), on whichever node."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if program in Path(words[0].decode()).name and name.encode() in words and b"run" in words:
            found.append(int(folder.name))
    return sorted(found)


def steps_on_record(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]


def restarted(site, home, name: str, job: str, times: int) -> None:
    wait(lambda: restarts(site, job) == times, 120, f"restart {times}")
    saved = step_of(home / "runs" / name)
    wait(lambda: step_of(home / "runs" / name) > saved + 5 or job_state(site, job) == "COMPLETED", 240, "the run to go on")


def test_a_run_of_two_nodes_survives_a_signal_and_the_death_of_a_rank_and_of_its_launcher(site, home, uninterrupted):
    job = submitted(site, "ranks")
    run = home / "runs" / "ranks"
    wait(lambda: step_of(run) >= 7, 240, "the seventh step")
    command(site, "scancel", "--signal=USR1", job)
    restarted(site, home, "ranks", job, 1)
    os.kill(processes("ranks", "python")[-1], signal.SIGKILL)
    restarted(site, home, "ranks", job, 2)
    os.kill(processes("ranks", "srun")[0], signal.SIGKILL)
    wait(lambda: restarts(site, job) == 3, 120, "the third restart")
    wait(lambda: job_state(site, job) in {"COMPLETED", "FAILED", "CANCELLED"}, 300, "the end of the job")
    log = next(run.glob("slurm-*.out")).read_text()
    assert job_state(site, job) == "COMPLETED", log
    assert log.count("a process was killed") == 2
    assert sha256_file(home / "zoo" / "ranks" / "model.safetensors") == uninterrupted
    assert steps_on_record(run) == list(range(1, STEPS + 1))  # what a kill lost is written once, when it is done again
    facts = json.loads((run / "run.json").read_text())
    parts = {path.name.rsplit("-", 1)[1] for path in (run / "wandb").glob("offline-run-*")}
    assert parts == {facts["wandb"]}  # one W&B run
