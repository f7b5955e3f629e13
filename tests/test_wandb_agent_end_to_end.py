"""`wandb agent` starts pretraining: the command line of W&B, a server on the loopback that hands out the parameters, and a run on noise."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from encoders.runtime.paths import home_dir
from pretrain.run.lifecycle import new_run_dir, resume_run, start_run
from pretrain.run.rundir import find_run
from tests.pretrain.runs import MAE, recipe, sigterm_at_step, store
from tests.wandb_server import ENTITY, PROJECT, run_server

RUN, SWEEP = "ab12cd34", "sw1"
SMALL = [word for word in MAE if not word.startswith("steps=")]


def serve_sweep(server, sweep, parameters):
    """Makes the server answer as W&B does for a sweep of one run."""
    entries = {key: {"value": value} for key, value in parameters.items()}
    commands = [[{"type": "run", "id": "1", "run_id": RUN, "args": entries, "program": "pretrain"}]]
    found = {"id": "s", "name": SWEEP, "config": yaml.safe_dump(sweep), "state": "RUNNING", "runs": {"edges": []}}
    server.on_SweepWithRuns = lambda v: {"project": {"sweep": found}}
    server.on_CreateAgent = lambda v: {"createAgent": {"agent": {"id": "agent"}}}
    server.on_Heartbeat = lambda v: {
        "agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(commands.pop() if commands else [])}
    }


@pytest.mark.slow
def test_the_agent_of_w_and_b_trains_the_run_that_it_announced(tmp_path):
    images = store(tmp_path, n=20)
    program = [sys.executable, "-m", "pretrain", "run", *SMALL, f"data.store={images}", "steps=3", "warmup_steps=1", "--device", "cpu"]
    sweep = {"method": "grid", "parameters": {"seed": {"values": [7]}}, "command": [*program, "${args_no_hyphens}"]}
    with run_server() as server:
        serve_sweep(server, sweep, {"seed": 7, "optim.lr": 0.002, "init": None})
        env = (
            os.environ
            | server.env()
            | {"ISOGRAFT_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
        )
        words = [sys.executable, "-m", "wandb", "agent", "--count", "1", f"{ENTITY}/{PROJECT}/{SWEEP}"]
        done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        run = tmp_path / "runs" / f"cxr_mae_tiny_{RUN}"
        info = json.loads((run / "run.json").read_text())
        assert (info["status"], info["wandb"], info["id"], info["wandb_sweep"]) == ("finished", RUN, RUN, SWEEP), done.stderr
        settings = yaml.safe_load((run / "config.yaml").read_text())
        assert (settings["seed"], settings["optim"]["lr"], settings["init"]) == (7, 0.002, None)
        assert set(server.runs) == {RUN}
        assert server.runs[RUN]["sweep"] == SWEEP
        config = server.config(RUN)
        assert (config["seed"], config["optim"]["lr"], config["init"]) == (7, 0.002, None)
        assert (tmp_path / "zoo" / run.name / "card.yaml").is_file()


@pytest.mark.slow
def test_a_run_of_an_agent_keeps_its_id_when_another_agent_or_job_continues_it(tmp_path, monkeypatch):
    """It is stopped, and resumed where the environment names another run of the sweep, as in a job that starts its agent again."""
    images = store(tmp_path, n=20)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_RUN_ID", RUN)
    monkeypatch.setenv("WANDB_SWEEP_ID", SWEEP)
    wanted = recipe(images, SMALL, "steps=4", "warmup_steps=1")
    sigterm_at_step(monkeypatch, 2)
    assert start_run(wanted, new_run_dir(None, "cxr_mae_tiny", None), "cpu") == 75
    monkeypatch.setenv("WANDB_RUN_ID", "other123")
    run = find_run(f"cxr_mae_tiny_{RUN}")
    assert resume_run(run, "cpu") == 0
    parts = sorted(path.name for path in (run.path / "wandb").glob("offline-run-*"))
    assert len(parts) == 2
    assert {name.split("-")[3] for name in parts} == {RUN} == {run.read()["wandb"]}  # ID-1 for a second part within the same second
    assert not list(home_dir().rglob("*other123*"))
