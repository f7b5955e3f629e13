"""The command line: what it prints, what it leaves behind, and with which status it ends."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from encoders.runtime.errors import InputError
from encoders.runtime.paths import home_dir, runs_dir
from pretrain.cli.main import app
from tests.pretrain.runs import MAE, MOCO, run, store


def told(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


def start(*words):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "ISOGRAFT_HOME": str(home_dir())}
    code = "from pretrain.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def images(tmp_path):
    return store(tmp_path)


def test_a_run_is_trained_exported_and_listed(images):
    assert told("run", *MAE, f"data.store={images}", "--name", "mine", "--device", "cpu").exit_code == 0
    assert (home_dir() / "zoo" / "mine" / "model.safetensors").exists()
    status = told("status").output
    assert "mine" in status
    assert "finished" in status
    assert "9/9" in status
    assert told("export", "mine", "--step", "8", "--name", "early").exit_code == 0
    assert (home_dir() / "zoo" / "early" / "card.yaml").exists()


def test_recipes_methods_and_settings_are_listed():
    assert "cxr_moco_tiny" in told("recipes").output
    methods = told("methods").output
    assert "moco: MoCo v2" in methods
    assert "cost    1 forward and backward, 1 forward" in methods
    assert "method.mask_ratio" not in methods
    one = told("methods", "mae").output
    assert "method.mask_ratio" in one
    assert "moco:" not in one
    assert "did you mean moco" in str(told("methods", "mooc").exception)
    assert "optim.lr" in told("settings").output


def test_a_plan_says_what_a_run_would_be_and_writes_nothing(images):
    before = sorted(home_dir().rglob("*"))
    out = told("plan", *MOCO, f"data.store={images}", "epochs=50", "steps=null", "--device", "cpu").output
    assert "250 steps = 50.0 epochs of 5 steps" in out
    assert "80 of 80 in the store" in out
    assert "0.00375 at its peak (0.06, linear rule, at 16 images)" in out
    assert "32 keys = 40 % of the images" in out
    assert "69 steps" in out  # ln(1/2) / ln(0.99)
    assert "images/s" in out
    assert "note: queue 4096 -> 32" in out
    assert sorted(home_dir().rglob("*")) == before


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_mistake_is_told_alone_with_status_2_and_leaves_nothing(command, images):
    for words, message in (
        (["cxr_mco"], "did you mean cxr_moco"),
        ([*MAE, f"data.store={images}", "batch=999"], "batch=999 is more than the 80"),
    ):
        done = start(command, *words)
        out, err = done.communicate(timeout=300)
        assert done.returncode == 2
        assert message in err
        assert "Traceback" not in err
        assert out == ""
    assert not runs_dir().exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGUSR1, 75)])
def test_a_signal_saves_and_says_how_to_go_on(images, number, status):
    run_ = start("run", *MAE, f"data.store={images}", "steps=100000", "--name", "long", "--device", "cpu")
    metrics, end = runs_dir() / "long" / "metrics.jsonl", time.monotonic() + 200
    while not (metrics.exists() and metrics.read_text().count("\n") >= 3) and time.monotonic() < end:
        time.sleep(0.1)
    run_.send_signal(number)
    _, err = run_.communicate(timeout=200)
    assert run_.returncode == status, err
    assert "go on with: pretrain resume long" in err
    step = json.loads((runs_dir() / "long" / "run.json").read_text())["step"]
    assert json.loads(metrics.read_text().splitlines()[-1])["step"] == step
    assert (runs_dir() / "long" / "checkpoints" / f"step-{step:08d}.pt").exists()
    assert (runs_dir() / "long" / ".requeue").exists() == (number == signal.SIGUSR1)
    assert "stopped" in told("status", "long").output or "to be resumed" in told("status", "long").output


def test_a_dry_run_of_a_job_refuses_what_a_job_would_be_refused_for(images, monkeypatch):
    monkeypatch.setattr("pretrain.run.job_checks.NODE_LOCAL_FOLDERS", ())  # the test's own folder lies there
    words = ["submit", "cxr_moco_tiny", f"data.store={images}", "--dry-run", "--gpus", "0"]
    done = CliRunner().invoke(app, [*words, "batch=33", "--nodes", "2", "--procs", "2"])
    assert "cannot be dealt out to 4 processes" in str(done.exception)
    done = CliRunner().invoke(app, [*words[:2], "data.store=nowhere.h5", *words[3:]])
    assert isinstance(done.exception, InputError)


def test_an_unknown_run_is_told_with_the_nearest_one(images):
    run(images, MAE, "cxr_first")
    done = start("resume", "cxr_frist")
    assert "did you mean cxr_first?" in done.communicate(timeout=200)[1]
    assert done.returncode == 2
