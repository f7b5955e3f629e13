"""A sweep as a SLURM array: what is submitted, and what `status`, `logs` and `cancel` say of all of its runs."""

import os
import shlex
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from encoders.runtime import paths, slurm_jobs
from encoders.runtime.errors import InputError
from encoders.runtime.files import write_json
from encoders.runtime.sweep_folder import SweepFolder, SweepInfo, SweepRun
from pretrain.cli.main import app
from pretrain.run import job_checks
from pretrain.run.run_jobs import find_log, list_job_ids
from pretrain.run.rundir import describe_session, run_dir_for
from tests.fake_slurm import FakeSlurm, job_line
from tests.pretrain.runs import MAE, store

RECIPE, *WORDS = MAE


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """SLURM without a queue: `sbatch` answers 12 and keeps its arguments in `calls`."""
    fake = FakeSlurm(tmp_path / "bin", monkeypatch)
    sbatch = fake.folder / "sbatch"
    sbatch.write_text(
        f'#!/bin/sh\necho "$@" >> {fake.folder}/calls\n[ -e {fake.folder}/refuse ] && {{ echo "no such queue" >&2; exit 1; }}\necho 12\n'
    )
    sbatch.chmod(0o755)
    fake.calls = lambda: (fake.folder / "calls").read_text().splitlines()
    return fake


def invoke(*words):
    return CliRunner().invoke(app, [str(w) for w in words], env={"COLUMNS": "200"})


@pytest.fixture
def submit(tmp_path, monkeypatch):
    """`pretrain submit` on a store of 20 images; speed is not measured."""
    images = store(tmp_path, n=20)
    monkeypatch.setattr(job_checks, "estimate_job_time", lambda *given: ["time"])
    words = ["submit", RECIPE, *WORDS, f"data.store={images}", "--gpus", "0", "--name", "s"]
    (paths.home_dir() / "slurm.yaml").write_text(f"shared: [{tmp_path}, {paths.home_dir()}]\n")

    def run(*more):
        done = invoke(*words, *more)
        if isinstance(done.exception, InputError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


def made_sweep(*runs, jobs=None):
    """A sweep called s with these runs. jobs: the array task of each."""
    folder = SweepFolder(paths.sweeps_dir() / "s")
    folder.write(SweepInfo(recipe="r", overrides=[], keys=["seed"], runs=[SweepRun(name=name, settings=[]) for name in runs]))
    for name, job in (jobs or {}).items():
        (paths.runs_dir() / name).mkdir(parents=True)
        slurm_jobs.record_job(paths.runs_dir() / name, job)
    return folder


def test_a_sweep_is_one_array_with_a_line_of_arguments_for_each_run(slurm, submit):
    out = submit("--sweep", "seed=0,1", "--sweep", "optim.lr=0.1,0.2", "--at-once", "3")
    assert "sweep s: 4 runs: 4 to submit" in out
    assert "submitted array 12" in out
    assert "4 runs with 1 process(es) each; follow it with `pretrain status s`" in out
    (call,) = slurm.calls()
    assert call.split()[:2] == ["--parsable", "--array=0-3%3"]
    folder = paths.sweeps_dir() / "s"
    lines = [shlex.split(line) for line in (folder / "runs.txt").read_text().splitlines()]
    assert [line[0] for line in lines] == ["s_seed0_lr0.1", "s_seed0_lr0.2", "s_seed1_lr0.1", "s_seed1_lr0.2"]
    assert lines[2][1] == RECIPE
    assert lines[2][-2:] == ["seed=1", "optim.lr=0.1"]
    script = (folder / "job.sbatch").read_text()
    assert f"#SBATCH --output={folder}/slurm-%A_%a.out" in script
    assert slurm_jobs.list_jobs(run_dir_for("s_seed1_lr0.2").path) == ["12_3"]


def test_the_script_takes_the_arguments_of_its_array_task_and_requeues_only_itself(slurm, submit, tmp_path):
    """The submitted script runs here, with commands that print their arguments."""
    submit("--sweep", "seed=0,1", "--setup", "true")
    script = paths.sweeps_dir() / "s" / "job.sbatch"
    for name, body in {
        "srun": f'while [ "$1" != pretrain ]; do shift; done; echo "$@" > {tmp_path}/ran; touch "$MARK"; exit 75',
        "scontrol": f'[ "$1" = show ] && echo "n1 JobState=RUNNING "; echo "$@" >> {tmp_path}/asked',
        "sleep": "exit 0",
    }.items():
        (slurm.folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (slurm.folder / name).chmod(0o755)
    text = script.read_text().replace('MARK="$FOLDER/.requeue"', 'export MARK="$FOLDER/.requeue"')
    env = {
        "SLURM_JOB_ID": "12",
        "SLURM_ARRAY_JOB_ID": "12",
        "SLURM_ARRAY_TASK_ID": "1",
        "SLURM_JOB_NODELIST": "n1",
    }  # the last task has the array's id
    done = subprocess.run(["bash", "-c", text], env=os.environ | env, capture_output=True, text=True)
    assert "job 12_1, run s_seed1, on n1" in done.stdout, done.stderr
    assert (tmp_path / "ran").read_text().split()[-4:] == [(tmp_path / "ran").read_text().split()[-4], "--name", "s_seed1", "--continue"]
    assert "seed=1" in (tmp_path / "ran").read_text().split()
    asked = (tmp_path / "asked").read_text().splitlines()
    assert "requeue 12_1" in asked
    assert "show job 12_1 --oneliner" in asked


def test_the_same_command_again_submits_what_is_neither_finished_nor_queued(slurm, submit):
    submit("--sweep", "seed=0,1,2")
    slurm.show("12_0", job_line(state="FAILED", code=1))
    slurm.show("12_1", job_line(state="RUNNING"))
    slurm.show("12_2", job_line(state="PENDING"))
    out = submit("--sweep", "seed=0,1,2,3")
    assert "sweep s: 4 runs: 2 to submit, 2 in the queue (12_1, 12_2)" in out
    assert slurm.calls()[-1].split()[1] == "--array=0,3"
    for job in ("12_0", "12_3"):
        slurm.show(job, job_line(state="PENDING"))
    out = submit("--sweep", "seed=0,1,2,3")
    assert "sweep s: 4 runs: 0 to submit, 4 in the queue" in out
    assert len(slurm.calls()) == 2


def test_a_refused_sweep_leaves_everything_as_it_was(slurm, submit):
    (slurm.folder / "refuse").touch()
    with pytest.raises(InputError, match="no such queue"):
        submit("--sweep", "seed=0,1")
    assert not paths.sweeps_dir().exists()
    assert not paths.runs_dir().exists()
    (slurm.folder / "refuse").unlink()
    submit("--sweep", "seed=0,1")
    before = (paths.sweeps_dir() / "s" / "runs.txt").read_text()
    (slurm.folder / "refuse").touch()
    with pytest.raises(InputError, match="no such queue"):
        submit("--sweep", "seed=0,1,2")
    assert (paths.sweeps_dir() / "s" / "runs.txt").read_text() == before
    assert not (paths.runs_dir() / "s_seed2").exists()


def test_a_sweep_that_cannot_work_is_refused_and_a_dry_run_writes_nothing(slurm, submit):
    with pytest.raises(InputError, match="--at-once limits the runs of a sweep"):
        submit("--at-once", "2")
    with pytest.raises(InputError, match="batch=16 cannot be divided among 3 processes"):
        submit("--sweep", "seed=0,1", "--procs", "3")
    with pytest.raises(InputError, match="sizze: unknown key"):
        submit("--sweep", "sizze=32,48")
    printed = submit("--sweep", "seed=0,1", "--dry-run")
    assert "# element 1: s_seed1: " in printed
    assert "#!/bin/bash" in printed
    assert not paths.sweeps_dir().exists()
    assert not (slurm.folder / "calls").exists()


def test_status_lists_the_runs_of_a_sweep_and_counts_their_states(slurm):
    made_sweep("s_a", "s_b", "s_c", "s_d", jobs={"s_a": "12_0", "s_b": "12_1", "s_c": "12_2"})
    (paths.runs_dir() / "alone").mkdir()
    slurm_jobs.record_job(paths.runs_dir() / "alone", "9")
    slurm.show("9", job_line(state="PENDING"))
    slurm.show("12_0", job_line(state="PENDING", reason="JobArrayTaskLimit"))
    slurm.show("12_1", job_line(state="RUNNING"))
    slurm.show("12_2", job_line(state="FAILED", code=127))
    (paths.sweeps_dir() / "s" / "slurm-12_2.out").write_text("load_module: command not found\n")
    lines = [" ".join(line.split()) for line in invoke("status", "s").output.splitlines()]
    assert lines[1:5] == [
        "s_a queued 12_0 PENDING (JobArrayTaskLimit)",
        "s_b starting 12_1 RUNNING",
        "s_c failed 12_2 FAILED (exit status 127)",
        "s_d not started",
    ]
    assert f"s_c: log {paths.sweeps_dir() / 's' / 'slurm-12_2.out'}" in lines
    assert "| load_module: command not found" in lines
    assert lines[-1] == "sweep s: 4 runs: 1 queued, 1 starting, 1 failed, 1 not started"
    everything = [" ".join(line.split()) for line in invoke("status").output.splitlines()]
    assert [line.split()[0] for line in everything[1:5]] == ["alone", "s_a", "s_b", "s_c"]
    assert everything[-1] == lines[-1]
    assert "did you mean s?" in str(invoke("status", "ss").exception)


def test_logs_are_those_of_all_runs(slurm):
    made_sweep("s_a", "s_b", "s_c", jobs={"s_a": "12_0", "s_b": "12_1"})
    for i, name in enumerate("ab"):
        log = paths.sweeps_dir() / "s" / f"slurm-12_{i}.out"
        log.write_text("".join(f"{name}{line}\n" for line in range(20)))
        slurm.show(f"12_{i}", job_line(state="COMPLETED", log=log))
    shown = invoke("logs", "s", "-n", "2").stdout.splitlines()
    assert shown == ["==> s_a <==", "a18", "a19", "==> s_b <==", "b18", "b19", "==> s_c: no log, it was not run by SLURM <=="]
    assert len(invoke("logs", "s", "-f").stdout.splitlines()) == 3 + 2 * 10  # ends, because all jobs have ended
    assert invoke("logs", "s_b", "-n", "1").stdout == "b19\n"
    slurm.show("12_0")  # SLURM has forgotten it
    assert invoke("logs", "s_a", "-n", "1").stdout == "a19\n"


def test_cancel_cancels_what_is_in_the_queue(slurm):
    made_sweep("s_a", "s_b", "s_c", jobs={"s_a": "12_0", "s_b": "12_1", "s_c": "12_2"})
    slurm.show("12_0", job_line(state="COMPLETED"))
    slurm.show("12_1", job_line(state="RUNNING"))
    slurm.show("12_2", job_line(state="PENDING"))
    assert invoke("cancel", "s").output == "cancelled 2 of 3 runs of sweep s: jobs 12_1, 12_2\n"
    assert slurm.cancelled() == ["12_1", "12_2"]
    slurm.show("12_1")
    slurm.show("12_2")
    assert "sweep 's' has no job in the queue" in str(invoke("cancel", "s").exception)


def test_the_newest_job_of_a_run_is_found_among_jobs_and_array_tasks(slurm, monkeypatch):
    run = run_dir_for("s_a")
    run.path.mkdir(parents=True)
    for job in ("9", "12_3", "11_10"):
        slurm_jobs.record_job(run.path, job)
    monkeypatch.setenv("SLURM_JOB_ID", "15")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert describe_session("cpu", 0)["slurm_job"] == "12_3"  # not 15, by which the array is not known
    run.config.touch()
    write_json(run.info, {"asked": "", "sessions": [{"slurm_job": "12_3"}, {"slurm_job": "13"}]})
    assert list_job_ids(run) == ["9", "11_10", "12_3", "13"]
    assert find_log(run, None) is None


@pytest.mark.parametrize(
    "words",
    [
        ["status", "s"],
        ["cancel", "s"],
        ["logs", "s"],
        ["run", "cxr_moco", "--sweep", "seed"],
        ["submit", "cxr_moco", "--sweep", "seed=1,1"],
        ["run", "cxr_moco", "--sweep", "optim.lrr=1,2"],
        ["plan", "cxr_moco", "--sweep", "batch=abc,3"],
        ["submit", "cxr_moco", "batchh=3", "--sweep", "seed=0,1"],
        ["run", "cxr_moco", "--sweep", "method.name=mocoo,mocooo"],
        ["methods", "mocoo"],
    ],
)
def test_these_commands_do_not_import_torch(words, monkeypatch):
    made_sweep("s_a")
    code = f"""
import sys
sys.argv = ["pretrain", *{words!r}]
from pretrain.cli.main import main
try:
    main()
except SystemExit as end:
    assert end.code in (0, 2), end.code
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
