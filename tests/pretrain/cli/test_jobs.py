"""`pretrain status`, `logs` and `cancel`: a run from its submission on, as SLURM and its files describe it."""

import json
import os
import subprocess
import sys
import threading

import pytest
from typer.testing import CliRunner

from encoders.runtime import slurm_jobs
from encoders.runtime.errors import InputError
from encoders.runtime.paths import runs_dir
from pretrain.cli.main import app
from pretrain.run.slurm_job import submit_job
from tests.fake_slurm import FakeSlurm, job_line
from tests.pretrain.runs import MAE, run, store


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    return FakeSlurm(tmp_path / "bin", monkeypatch)


def submitted(name, job, log=None):
    folder = runs_dir() / name
    folder.mkdir(parents=True, exist_ok=True)
    slurm_jobs.record_job(folder, job)
    if log is not None:
        (folder / f"slurm-{job}.out").write_text(log)
    return folder


def invoke(*words):
    return CliRunner().invoke(app, [str(w) for w in words], env={"COLUMNS": "200"})


@pytest.mark.parametrize(
    ("line", "state", "job"),
    [
        (job_line(state="PENDING", reason="Priority"), "queued", "2 PENDING (Priority)"),
        (job_line(state="RUNNING"), "starting", "2 RUNNING"),
        (job_line(state="FAILED", code=127), "failed", "2 FAILED (exit status 127)"),
        (job_line(state="NODE_FAIL"), "failed", "2 NODE_FAIL"),
        (job_line(state="CANCELLED"), "cancelled", "2 CANCELLED"),
        (None, "not started", "2"),
    ],
)
def test_a_submitted_run_is_listed_before_it_trains(slurm, line, state, job):
    submitted("mine", "2", "\n".join(f"line {i}" for i in range(9)) + "\nmodule: command not found\n")
    slurm.show("2", *[line] * bool(line))
    out = invoke("status").output
    assert " ".join(out.splitlines()[1].split()) == f"mine {state} {job}"
    failed = state in ("failed", "not started")
    assert ("  | module: command not found" in out) == failed
    assert "line 1\n" not in out
    assert str(runs_dir() / "mine" / "slurm-2.out") in invoke("status", "mine").output
    with pytest.raises(InputError, match="has not started yet: it was submitted as job 2"):
        raise invoke("resume", "mine").exception


def test_runs_with_invalid_names_and_damaged_files_are_flagged_and_hide_no_others(slurm):
    for name in ("good", "-rf", "\x1b[31mred", "[red]marked", "torn"):
        submitted(name, "2")
    (runs_dir() / "torn" / "config.yaml").write_text("method: {name: moco}\n")
    (runs_dir() / "torn" / "run.json").write_text("{")
    slurm.show("2", job_line(state="RUNNING"))
    done = invoke("status")
    assert done.exit_code == 0
    rows = {" ".join(line.split()) for line in done.output.splitlines()}
    assert {"good starting 2 RUNNING", "'-rf' invalid name", "'\\u001b[31mred' invalid name", "'[red]marked' invalid name"} <= rows
    assert "torn unreadable" in rows
    assert "\x1b" not in done.output
    assert f"'-rf': it begins with '-'; rename its folder in {runs_dir()}" in rows
    assert any(row.startswith("torn: ") and "run.json" in row for row in rows)
    assert isinstance(invoke("status", "torn").exception, InputError)


def test_a_run_is_what_its_files_and_its_newest_job_say_together(slurm, tmp_path):
    where = run(store(tmp_path), MAE, "mine")
    submitted("mine", "2", "killed by the node\n")
    slurm.show("2", job_line(state="COMPLETED"))
    assert "finished" in invoke("status").output
    assert "COMPLETED" not in invoke("status").output  # a finished run is not asked about
    assert "2 COMPLETED" in invoke("status", "mine").output
    where.update(status="running")
    lock = {"host": "another", "pid": 1, "born": None, "job": "2"}
    (where.path / "lock").write_text(json.dumps(lock))
    for line, state in (
        (job_line(state="RUNNING"), "running"),
        (job_line(state="NODE_FAIL"), "died"),  # the lock of another host alone would count as alive
        (job_line(state="CANCELLED"), "cancelled"),
    ):
        slurm.show("2", line)
        out = invoke("status").output
        assert out.splitlines()[1].split()[1] == state
        assert ("| killed by the node" in out) == (state == "died")
    (where.path / "lock").unlink()
    slurm.show("2", job_line(state="PENDING", reason="BeginTime", restarts=2))
    row = invoke("status").output.splitlines()[1]
    assert "to be resumed" in row
    assert row.strip().endswith("2 PENDING (BeginTime), requeued 2 times")
    where.requeue_marker.touch()
    where.update(status="stopped")
    slurm.show("2", job_line(state="CANCELLED"))
    assert invoke("status").output.splitlines()[1].split()[1] == "stopped"  # it was cancelled while it waited


def test_the_log_is_printed_and_followed_to_the_end_of_the_job(slurm):
    assert "no log: it was not run by SLURM" not in str(invoke("logs", "mine").exception)
    folder = submitted("mine", "2")
    slurm.show("2", job_line(state="PENDING", reason="Priority"))
    assert "has no log yet: its job 2 is PENDING (Priority)" in str(invoke("logs", "mine").exception)
    log = folder / "slurm-2.out"
    log.write_text("one\ntwo\nthree\n")
    assert invoke("logs", "mine", "-n", 2).stdout == "two\nthree\n"
    slurm.show("2", job_line(state="RUNNING", log=log))
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    follow = subprocess.Popen([sys.executable, "-m", "pretrain", "logs", "mine", "-f"], stdout=subprocess.PIPE, text=True, env=env)
    end = threading.Timer(60, follow.kill)  # a line that does not come must not block the suite
    end.start()
    assert [follow.stdout.readline() for _ in range(3)] == ["one\n", "two\n", "three\n"]
    with log.open("a") as file:
        file.write("four\n")
    assert follow.stdout.readline() == "four\n"
    slurm.show("2", job_line(state="COMPLETED", log=log))
    assert follow.communicate(timeout=60)[0] == ""
    end.cancel()
    assert follow.returncode == 0


def test_a_run_outside_slurm_has_no_log_and_no_job_to_cancel(slurm, tmp_path):
    run(store(tmp_path), MAE, "mine")
    assert "has no log: it was not run by SLURM; `pretrain watch mine`" in str(invoke("logs", "mine").exception)
    assert "has no job in the queue" in str(invoke("cancel", "mine").exception)


def test_cancel_cancels_the_active_job_and_reports_a_refusal(slurm, monkeypatch):
    submitted("mine", "2")
    submitted("mine", "3")
    slurm.show("2", job_line(state="FAILED"))
    slurm.show("3", job_line(state="PENDING"))
    assert invoke("cancel", "mine").output == "cancelled job 3 of run mine\n"
    assert slurm.cancelled() == ["3"]
    (slurm.folder / "scancel").write_text("#!/bin/sh\necho 'scancel: error: Access denied' >&2; exit 1\n")
    assert "SLURM did not cancel job 3 of run 'mine': scancel: error: Access denied" in str(invoke("cancel", "mine").exception)


def test_a_job_that_slurm_refuses_leaves_no_folder_and_keeps_an_earlier_script(slurm):
    sbatch = slurm.folder / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 'Requested node configuration is not available' >&2; exit 1\n")
    sbatch.chmod(0o755)
    with pytest.raises(InputError, match="Requested node configuration"):
        submit_job("mine", "#!/bin/bash\n")
    assert not runs_dir().exists()
    sbatch.write_text("#!/bin/sh\necho 9\n")
    assert submit_job("mine", "#!/bin/bash\n")[0] == "9"
    assert slurm_jobs.list_jobs(runs_dir() / "mine") == ["9"]


@pytest.mark.parametrize(
    "words",
    [["status"], ["logs", "none"], ["cancel", "none"], ["recipes"], ["settings"], ["methods"], ["methods", "moco"], ["methods", "none"]],
)
def test_these_commands_do_not_import_torch(words):
    code = f"""
import sys
sys.argv = ["pretrain", *{words!r}]
try:
    from pretrain.cli.main import main
    main()
finally:
    heavy = {{"torch", "torchvision", "timm", "lightly", "h5py", "wandb", "matplotlib", "sklearn"}} & set(sys.modules)
    assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "AssertionError" not in done.stderr, done.stderr
    assert done.returncode == (2 if "none" in words else 0), done.stderr
