"""A sweep on one machine: its runs one after the other, each resumed or skipped as what exists says."""

import os
import signal

import pytest
from typer.testing import CliRunner

from encoders.runtime import slurm_jobs
from encoders.runtime.errors import InputError
from encoders.runtime.files import read_json, write_json
from encoders.runtime.paths import runs_dir, zoo_dir
from encoders.runtime.stop import StopRequest
from encoders.runtime.sweep_folder import expand_sweeps, find_sweep
from pretrain.cli.main import app
from pretrain.run import sweep_sequence
from pretrain.run.sweep import plan_sweep
from pretrain.run.sweep_cost import count_steps, group_by_cost
from pretrain.run.sweep_sequence import FINISHED, FINISHED_BEFORE, NOT_STARTED, launch_run, run_in_sequence
from tests.pretrain.runs import MAE, store

RECIPE, *WORDS = [*MAE, "steps=3", "warmup_steps=1"]


def invoke(*words):
    return CliRunner().invoke(app, [str(w) for w in words], env={"COLUMNS": "200"})


@pytest.fixture
def sweep(tmp_path):
    """A function that plans a sweep over the store."""
    images = store(tmp_path, n=20)
    return lambda *texts, name="s", more=(): plan_sweep(RECIPE, [*without(texts), f"data.store={images}", *more], texts, name)


def without(texts):
    """The settings of the recipe that a sweep does not vary."""
    keys = {text.partition("=")[0] for text in texts}
    return [word for word in WORDS if word.partition("=")[0] not in keys]


def finish(run, status="finished"):
    """The files of a run that was trained to its end, as far as a sweep reads them."""
    from pretrain.recipe.config import recipe_identity, write_recipe

    run.folder.path.mkdir(parents=True, exist_ok=True)
    write_recipe(run.folder.config, run.recipe)
    write_json(run.folder.info, {"status": status, "asked": recipe_identity(run.recipe), "steps": 3, "sessions": []})


def test_each_run_is_trained_and_a_failed_one_does_not_stop_the_others(tmp_path, monkeypatch):
    """The command itself, with runs in this process."""

    def launch(words, stop):
        done = invoke("run", *words)
        return 2 if isinstance(done.exception, InputError) else done.exit_code  # as `main` has it

    monkeypatch.setattr(sweep_sequence, "launch_run", launch)
    sweep = ["--device", "cpu", "--sweep", "batch=16,99,20", "--name", "s"]
    words = ["run", RECIPE, *without(["batch="]), f"data.store={store(tmp_path)}", *sweep]
    done = invoke(*words)  # 80 images: 99 of them in a batch are an error of this run alone
    assert done.exit_code == 1, done.output
    rows = [" ".join(line.split()) for line in done.output.splitlines()]
    assert any(row.startswith("s_batch16 finished 3/3") for row in rows)
    assert "s_batch99 failed: wrong input (exit status 2)" in rows
    assert any(row.startswith("s_batch20 finished 3/3") for row in rows)
    assert "sweep s: 2 of 3 runs are finished; the same command resumes or repeats the other 1: s_batch99" in rows
    assert {path.name for path in zoo_dir().iterdir()} == {"s_batch16", "s_batch20"}
    before = (runs_dir() / "s_batch16" / "run.json").read_bytes()
    done = invoke(*words)
    assert done.exit_code == 1
    assert "s_batch20 finished before 3/3" in " ".join(done.output.split())
    assert (runs_dir() / "s_batch16" / "run.json").read_bytes() == before  # a finished run is not touched
    status = [" ".join(line.split()) for line in invoke("status", "s").output.splitlines()]
    assert [line.split()[0] for line in status[1:4]] == ["s_batch16", "s_batch99", "s_batch20"]
    assert status[4] == "sweep s: 3 runs: 2 finished, 1 not started"
    assert "'s' is a sweep; name one of its runs: s_batch16, s_batch99, s_batch20" in str(invoke("resume", "s").exception)
    assert "'s' is a sweep of 3 runs" in str(invoke("run", RECIPE, *WORDS, "--name", "s").exception)
    with pytest.raises(InputError, match=r"1 of 3 runs of sweep 's' have no encoder: s_batch99; .* --encoder s_batch16,s_batch20"):
        expand_sweeps(["a", "s"])


def test_only_what_is_left_is_run_and_words_are_those_of_a_single_run(sweep):
    planned = sweep("seed=0,1,2")
    finish(planned.runs[0])
    finish(planned.runs[1], "stopped")
    seen = []

    def launch(words, stop):
        seen.append(words)
        return {"s_seed1": 0, "s_seed2": -9}[words[words.index("--name") + 1]]

    results, status = run_in_sequence(planned, "cpu", launch)
    assert results == {"s_seed0": FINISHED_BEFORE, "s_seed1": FINISHED, "s_seed2": "killed by SIGKILL"}
    assert status == 1
    assert seen[0] == [RECIPE, *planned.runs[1].overrides, "--name", "s_seed1", "--continue", "--device", "cpu"]
    assert seen[0][seen[0].index("--name") - 1] == "seed=1"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_ends_the_sweep_after_the_run_that_got_it(sweep, number, status):
    def launch(words, stop):
        os.kill(os.getpid(), number)
        return status

    results, code = run_in_sequence(sweep("seed=0,1"), "cpu", launch)
    assert code == status
    assert results["s_seed0"].endswith(f"(exit status {status})")
    assert results["s_seed1"] == NOT_STARTED


def test_sigterm_is_passed_on_and_the_run_id_of_w_and_b_is_not(monkeypatch, tmp_path):
    out = tmp_path / "seen"
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/sh\necho "${{WANDB_RUN_ID-unset}} $*" > {out}\ntrap "exit 75" TERM\nwhile :; do sleep .02; done\n')
    fake.chmod(0o755)
    monkeypatch.setattr(sweep_sequence.sys, "executable", str(fake))
    monkeypatch.setattr(sweep_sequence, "CHILD_POLL_S", 0.1)
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    stop = StopRequest()
    stop.requested = "SIGTERM"
    code = launch_run(["a", "b=1"], stop)
    assert code in (75, -signal.SIGTERM)  # the signal may come before the trap
    if code == 75:
        assert out.read_text() == "unset -m pretrain run a b=1\n"


def test_a_sweep_that_gets_more_values_keeps_the_numbers_of_its_runs(sweep):
    first = sweep("seed=2,0", "optim.lr=0.1")
    first.folder.write(first.info)
    more = sweep("optim.lr=0.1,0.2", "seed=0,1")  # the other order gives the same names
    assert [run.name for run in more.info.runs] == ["s_seed2_lr0.1", "s_seed0_lr0.1", "s_seed0_lr0.2", "s_seed1_lr0.1", "s_seed1_lr0.2"]
    assert {run.name: run.number for run in more.runs} == {
        "s_seed0_lr0.1": 1, "s_seed0_lr0.2": 2, "s_seed1_lr0.1": 3, "s_seed1_lr0.2": 4
    }  # fmt: skip
    assert more.runs[1].recipe.optim.lr == 0.2
    assert more.runs[1].recipe.seed == 0
    with pytest.raises(InputError, match=r"varies seed and optim.lr, not seed"):
        sweep("seed=5")
    with pytest.raises(InputError, match="exists with other settings"):
        sweep("seed=2", "optim.lr=0.1", more=["batch=8"])
    sweep("seed=2", "optim.lr=0.1", more=["data.workers=1"])  # does not decide the weights


def test_names_that_are_taken_are_refused(sweep):
    planned = sweep("seed=0,1")
    finish(sweep("seed=0,1", more=["batch=8"]).runs[1])
    with pytest.raises(InputError, match="run 's_seed1' exists with other settings"):
        sweep("seed=0,1")
    (zoo_dir() / "mine").mkdir(parents=True)
    with pytest.raises(InputError, match="a sweep cannot be called 'mine'"):
        sweep("seed=0,1", name="mine")
    slurm_jobs_folder = runs_dir() / "queued"
    slurm_jobs_folder.mkdir()
    slurm_jobs.record_job(slurm_jobs_folder, "7")
    with pytest.raises(InputError, match="a sweep cannot be called 'queued'"):
        sweep("seed=0,1", name="queued")
    assert find_sweep(planned.folder.name) is None  # planning writes nothing


def test_runs_whose_steps_cost_the_same_are_measured_once(sweep):
    runs = sweep("seed=0,1", "optim.lr=0.1,0.2", "size=32,48", "steps=5,9").runs
    groups = group_by_cost(runs)
    assert [len(group) for group in groups] == [8, 8]
    assert {run.recipe.size for run in groups[0]} == {32}
    assert count_steps(runs[0].recipe, 7) == 5
    assert count_steps(runs[0].recipe.model_copy(update={"steps": None, "epochs": 1.5}), 7) == round(1.5 * 7)


def test_the_plan_of_a_sweep_is_that_of_its_groups_and_their_sum(sweep, monkeypatch):
    from pretrain.run import sweep_cost
    from pretrain.run.plan import RunPlan
    from pretrain.run.step_cost import StepCost

    def plan(recipe, device):
        return RunPlan([("size", str(recipe.size))], [], StepCost(seconds=[recipe.size / 32], waited=0, memory=1), 5)

    monkeypatch.setattr(sweep_cost, "plan_run", plan)
    planned, lines = sweep("seed=0,1,2", "size=32,64", more=["steps=60"]), []
    finish(planned.runs[0])
    sweep_cost.plan_sweep_cost(planned.runs, "cpu", lines.append)
    assert sum(line.startswith("plan ") for line in lines) == 2
    total = "9:00 for 6 runs, of which 1 are finished, one after the other on this cpu; the longest takes"
    assert " ".join(lines[-1].split()).startswith(f"total {total}")


def test_several_processes_do_not_start_a_sweep(sweep, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="use `pretrain submit --sweep`"):
        run_in_sequence(sweep("seed=0,1"), "cpu", lambda words, stop: 0)


def test_json_of_a_sweep_is_read_with_its_types(sweep):
    planned = sweep("seed=0,1")
    planned.folder.write(planned.info)
    assert find_sweep("s").read() == planned.info
    write_json(planned.folder.info_file, read_json(planned.folder.info_file) | {"unknown": 1})
    with pytest.raises(InputError, match="unknown"):
        find_sweep("s").read()
