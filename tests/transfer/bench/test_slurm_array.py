"""A benchmark as SLURM jobs: elements, scripts and resubmission. Tests with a real queue are in tests/cluster."""

import subprocess

import pytest
import typer

from encoders.runtime import paths, slurm, slurm_jobs
from encoders.runtime.errors import InputError
from encoders.runtime.files import write_json
from encoders.runtime.slurm_jobs import JobState
from encoders.runtime.slurm_site import Site
from tests.fake_slurm import FakeSlurm, job_line
from tests.transfer import toys
from transfer.bench.bench_folder import bench_folder, find_bench_folder, list_elements, list_unfinished
from transfer.bench.slurm_array import ArrayElement, build_elements, format_array_ranges, write_bench_folder
from transfer.cli.jobs import print_jobs
from transfer.cli.submit import check_elements, resubmit
from transfer.tasks.task import Task, save_task

A, B = "random_resnet10t:size=32,channels=1", "random_resnet10t:size=32,channels=1,seed=1"


@pytest.fixture
def tasks(tmp_path):
    """Two registered tasks on toy stores."""
    for name in ("one", "two"):
        path = toys.store(tmp_path / f"{name}.h5", patients=20)
        save_task(Task(name=name, store=[str(path)], labels=["sick"], classes=["sick"], kind="binary", modality="cxr"))
    return ["one", "two"]


def test_there_is_one_element_per_encoder_task_and_protocol(tasks):
    elements, after, missing = build_elements([A, B], tasks, ["knn", "linear"], [], ["--draws", "2"])
    assert [(c.encoder, c.task, c.protocol) for c in elements] == [(e, t, p) for e in (A, B) for t in tasks for p in ("knn", "linear")]
    assert {c.options for c in elements} == {("--baseline", "none", "--draws", "2")}
    assert (after, missing) == ([], {})


def test_default_baselines_have_their_own_elements_and_unavailable_ones_are_named(tasks):
    elements, _, missing = build_elements([B], ["one"], ["knn"], None)
    assert [c.encoder for c in elements] == [B, A, "pixels"]
    assert [name.partition(":")[0] for name in missing] == ["imagenet_resnet10t"]
    assert "put" in next(iter(missing.values()))


def test_an_encoder_in_pretraining_is_waited_for_and_computes_its_baselines(tasks, monkeypatch):
    run = paths.runs_dir() / "mine"
    run.mkdir(parents=True)
    slurm_jobs.record_job(run, "41")
    slurm_jobs.record_job(run, "42")
    monkeypatch.setattr(slurm_jobs, "job_state", lambda job: JobState(job, "PENDING" if job == "42" else "FAILED"))
    elements, after, _ = build_elements(["mine"], ["one"], ["knn"], None)
    assert after == ["42"]
    assert [c.arguments for c in elements] == [["--encoder", "mine", "--task", "one", "--protocol", "knn"]]
    with pytest.raises(InputError, match="name the tasks with --task"):
        build_elements(["mine"], [], ["knn"], None)


@pytest.mark.parametrize(
    ("options", "named"),
    [(["--drawz", "2"], "drawz"), (["--draws", "two"], "draws"), (["linear.stepz=9"], "stepz"), (["liner.steps=9"], "liner")],
)
def test_options_that_bench_would_refuse_are_refused_before_the_queue(options, named):
    with pytest.raises(InputError, match=named):
        check_elements([ArrayElement("e", "t", "linear", tuple(options))])
    check_elements([ArrayElement("e", "t", "linear", ("--draws", "2", "linear.steps=9", "knn.vote=majority"))])


def test_numbers_are_formatted_for_sbatch():
    assert format_array_ranges([0, 1, 2, 3]) == "0-3"
    assert format_array_ranges([7, 0, 1, 4, 4]) == "0-1,4,7"


def test_the_scripts_are_valid_shell_and_run_the_line_of_their_element(tmp_path):
    folder = bench_folder("mine")
    odd = ArrayElement("e", "a task", "knn", ("it's", "$(rm -rf x)"))
    write_bench_folder(folder, [ArrayElement("e", "t", "knn"), odd], Site(partition="gpu", setup=["module load cuda"]), ["--wandb"])
    for name in ("bench.sbatch", "compare.sbatch"):
        text = (folder.path / name).read_text()
        assert "#SBATCH --partition=gpu" in text
        assert "module load cuda" in text
        assert subprocess.run(["bash", "-n", folder.path / name]).returncode == 0
    assert folder.commands() == [["--encoder", "e", "--task", "t", "--protocol", "knn"], odd.arguments]
    (tmp_path / "bin").mkdir()
    for name, text in (("srun", 'while [[ $1 == --* ]]; do shift; done; "$@"'), ("transfer", 'printf "%s\\n" "$@"; exit 3')):
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    env = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": "1", "SLURM_JOB_NODELIST": "n1"}
    text = (folder.path / "bench.sbatch").read_text().replace("module load cuda\n", "")
    done = subprocess.run(["bash", "-c", text], env=env, capture_output=True, text=True)
    assert done.stdout.splitlines()[1:] == ["bench", *odd.arguments], done.stderr
    assert done.returncode == 3
    assert folder.exit_status(1) == 3


def test_only_failed_elements_are_resubmitted(monkeypatch):
    folder = bench_folder("mine")
    write_bench_folder(folder, [ArrayElement("e", t, "knn") for t in "abcd"], Site(), [])
    write_json(folder.info_file, {"array": "7"})
    folder.status_dir.mkdir()
    for i, code in enumerate((0, 1, 0)):
        (folder.status_dir / str(i)).write_text(f"{code}\n")
    monkeypatch.setattr(slurm_jobs, "job_state", lambda job: JobState(job, "CANCELLED"))
    assert list_unfinished(folder) == [1, 3]
    assert [row.state for row in list_elements(folder)] == ["done", "failed (1)", "done", "cancelled"]
    sent = []
    monkeypatch.setattr(slurm, "submit_script", lambda script, *options: sent.append((script.name, *options)) or str(len(sent)))
    resubmit("mine", ["5"])
    assert sent == [
        ("bench.sbatch", "--array=1,3", "--dependency=afterok:5", "--kill-on-invalid-dep=yes"),
        ("compare.sbatch", "--dependency=afterany:1"),
    ]
    assert folder.exit_status(1) is None
    for i in (1, 3):
        (folder.status_dir / str(i)).write_text("0\n")
    with pytest.raises(InputError, match="every element of bench 'mine' is done"):
        resubmit("mine", [])
    monkeypatch.setattr(slurm_jobs, "job_state", lambda job: JobState(job, "RUNNING"))
    with pytest.raises(InputError, match="still in the queue"):
        resubmit("mine", [])


def test_an_element_that_ended_before_its_command_failed_and_the_last_job_is_shown(capsys, tmp_path, monkeypatch):
    queue = FakeSlurm(tmp_path / "bin", monkeypatch)
    folder = bench_folder("mine")
    write_bench_folder(folder, [ArrayElement("e", t, "knn") for t in "abcd"], Site(), [])
    write_json(folder.info_file, {"array": "7", "compare": "20"})
    (folder.path / "slurm-7_0.out").write_text("module: command not found\n")
    states = ["FAILED", "RUNNING", "PENDING", "PENDING"]
    lines = [job_line(id=8 + i, state=s, code=127 * (s == "FAILED"), array=f"ArrayJobId=7 ArrayTaskId={i} ") for i, s in enumerate(states)]
    queue.show("7", *lines)
    queue.show("20", job_line(id=20, state="PENDING", reason="Dependency"))
    assert [row.state for row in list_elements(folder)] == ["failed (exit status 127)", "running", "pending", "pending"]
    with pytest.raises(typer.Exit):
        print_jobs("mine")
    out, err = capsys.readouterr()
    assert "last job, which compares the results: 20 PENDING (Dependency)" in out
    assert err.splitlines()[0] == "element 0: module: command not found"
    write_bench_folder(bench_folder("other"), [ArrayElement("e", "a", "knn")], Site(), [])
    with pytest.raises(typer.Exit):
        print_jobs()  # all
    overview = " ".join(capsys.readouterr().out.split())
    assert "mine 4 2 pending, 1 failed (exit status 127), 1 running 20 PENDING (Dependency)" in overview
    assert "other 1 1 not ended" in overview


def test_the_reason_of_a_failed_element_is_printed(capsys):
    folder = bench_folder("mine")
    write_bench_folder(folder, [ArrayElement("e", t, "knn") for t in "abc"], Site(), [])
    write_json(folder.info_file, {"array": "7"})
    folder.status_dir.mkdir()
    logs = {0: "computing\nerror: the encoder has seen 3 test images\nleft the node\n", 1: "Traceback\nValueError: no\n\n", 2: ""}
    for i, text in logs.items():
        (folder.path / f"slurm-7_{i}.out").write_text(text)
        (folder.status_dir / str(i)).write_text("2\n")
    with pytest.raises(typer.Exit):
        print_jobs("mine")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["element 0: error: the encoder has seen 3 test images", "element 1: ValueError: no"]
    assert lines[2].startswith("3 of 3 elements failed"), "an empty log has no reason"


def test_a_bench_with_other_elements_needs_another_name():
    write_bench_folder(bench_folder("mine"), [ArrayElement("e", "a", "knn")], Site(), [])
    with pytest.raises(InputError, match="other elements"):
        write_bench_folder(bench_folder("mine"), [ArrayElement("e", "b", "knn")], Site(), [])
    with pytest.raises(InputError, match="did you mean mine"):
        find_bench_folder("mina")
    with pytest.raises(InputError, match="cannot be the name"):
        bench_folder("../x")
