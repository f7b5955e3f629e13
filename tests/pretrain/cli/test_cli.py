"""The command line: what it prints, which files it leaves, and its exit status."""

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
from pretrain.cli.main import app, main
from pretrain.methods import METHODS
from pretrain.recipe.recipes import RECIPES
from tests.forked import run_forked
from tests.pretrain.runs import MAE, MOCO, run, store


def invoke(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


def start(*words):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "ISOGRAFT_HOME": str(home_dir())}
    code = "from pretrain.cli.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def pretrain_command(*words):
    sys.argv = ["pretrain", *words]
    main()


@pytest.fixture
def images(tmp_path):
    return store(tmp_path)


def test_a_run_is_trained_exported_and_listed(images):
    assert invoke("run", *MAE, f"data.store={images}", "--name", "mine", "--device", "cpu").exit_code == 0
    assert (home_dir() / "zoo" / "mine" / "model.safetensors").exists()
    status = invoke("status").output
    assert "mine" in status
    assert "finished" in status
    assert "9/9" in status
    assert invoke("export", "mine", "--step", "8", "--name", "early").exit_code == 0
    assert (home_dir() / "zoo" / "early" / "card.yaml").exists()


def test_recipes_methods_and_settings_are_listed():
    assert {line.split()[0] for line in invoke("recipes").output.splitlines()} == set(RECIPES)
    methods = invoke("methods").output
    assert [line.partition(":")[0] for line in methods.splitlines() if not line.startswith(" ")] == list(METHODS)
    assert "moco: MoCo v2" in methods
    assert "cost    1 forward and backward, 1 forward" in methods
    assert "method.mask_ratio" not in methods
    one = invoke("methods", "mae").output
    assert "method.mask_ratio" in one
    assert "moco:" not in one
    assert "did you mean moco" in str(invoke("methods", "mooc").exception)
    assert "optim.lr" in invoke("settings").output


@pytest.mark.parametrize("command", ["run", "plan", "preview", "submit", "stage"])
def test_the_help_of_a_command_that_takes_a_recipe_lists_the_recipes(command):
    words = invoke(command, "--help").output.replace(",", " ").replace(".", " ").split()
    assert set(RECIPES) <= set(words)


def test_a_plan_prints_sizes_and_speed_of_a_run_and_writes_nothing(images):
    before = sorted(home_dir().rglob("*"))
    out = invoke("plan", *MOCO, f"data.store={images}", "epochs=50", "steps=null", "--device", "cpu").output
    assert "250 steps = 50.0 epochs of 5 steps" in out
    assert "80 of 80 in the store" in out
    assert "0.00375 at its peak (0.06, linear rule, at 16 images)" in out
    assert "32 keys = 40 % of the images" in out
    assert "69 steps" in out  # ln(1/2) / ln(0.99)
    assert "images/s" in out
    assert "note: queue 4096 -> 32" in out
    assert sorted(home_dir().rglob("*")) == before


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_user_error_is_printed_alone_with_status_2_and_leaves_no_files(command, images, tmp_path):
    for words, message in (
        (["cxr_mco"], "did you mean cxr_moco"),
        ([*MAE, f"data.store={images}", "batch=999"], "batch=999 is more than the 80"),
    ):
        done = run_forked(pretrain_command, command, *words, logs=tmp_path / "command")
        assert done.status == 2
        assert message in done.errors
        assert "Traceback" not in done.errors
        assert done.printed == ""
    assert not runs_dir().exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGUSR1, 75)])
def test_a_signal_saves_a_checkpoint_and_prints_how_to_resume(images, number, status):
    run_ = start("run", *MAE, f"data.store={images}", "steps=100000", "--name", "long", "--device", "cpu")
    metrics, end = runs_dir() / "long" / "metrics.jsonl", time.monotonic() + 200
    while not (metrics.exists() and metrics.read_text().count("\n") >= 3) and time.monotonic() < end:
        time.sleep(0.1)
    run_.send_signal(number)
    _, err = run_.communicate(timeout=200)
    assert run_.returncode == status, err
    assert "resume with: pretrain resume long" in err
    step = json.loads((runs_dir() / "long" / "run.json").read_text())["step"]
    assert json.loads(metrics.read_text().splitlines()[-1])["step"] == step
    assert (runs_dir() / "long" / "checkpoints" / f"step-{step:08d}.pt").exists()
    assert (runs_dir() / "long" / ".requeue").exists() == (number == signal.SIGUSR1)
    assert "stopped" in invoke("status", "long").output or "to be resumed" in invoke("status", "long").output


def test_a_dry_run_of_a_job_makes_the_same_checks_as_a_submission(images, monkeypatch):
    monkeypatch.setattr("pretrain.run.job_checks.NODE_LOCAL_FOLDERS", ())  # the folder of the test is in one of them
    words = ["submit", "cxr_moco_tiny", f"data.store={images}", "--dry-run", "--gpus", "0"]
    done = CliRunner().invoke(app, [*words, "batch=33", "--nodes", "2", "--procs", "2"])
    assert "cannot be divided among 4 processes" in str(done.exception)
    done = CliRunner().invoke(app, [*words[:2], "data.store=nowhere.h5", *words[3:]])
    assert isinstance(done.exception, InputError)


def test_an_unknown_run_is_an_error_that_names_the_closest_one(images, tmp_path):
    run(images, MAE, "cxr_first")
    done = run_forked(pretrain_command, "resume", "cxr_frist", logs=tmp_path / "command")
    assert "did you mean cxr_first?" in done.errors
    assert done.status == 2
