"""A benchmark as SLURM jobs: cells, scripts and resubmission. Tests with a real queue are in tests/cluster."""

import subprocess
from pathlib import Path

import pytest
import typer

from encoders.runtime import paths, slurm, slurm_jobs
from encoders.runtime.errors import InputError
from encoders.runtime.files import write_json
from encoders.runtime.slurm_jobs import JobState
from encoders.runtime.slurm_site import Site
from tests.fake_slurm import FakeSlurm, job_line
from tests.transfer import toys
from transfer.bench import baselines
from transfer.bench.bench_folder import bench_folder, find_bench_folder, list_submitted_cells, list_unfinished, running_mark, write_status
from transfer.bench.dependencies import Dependencies
from transfer.bench.slurm_array import BenchCell, group_cells, list_bench_cells, write_bench_folder
from transfer.cli.jobs import print_jobs
from transfer.cli.submit import check_cells, resubmit
from transfer.tasks.task import Task, save_task

A, B = "random_resnet10t:size=32,channels=1", "random_resnet10t:size=32,channels=1,seed=1"


@pytest.fixture
def tasks(tmp_path):
    """Two registered tasks on toy stores."""
    for name in ("one", "two"):
        path = toys.store(tmp_path / f"{name}.h5", patients=20)
        save_task(Task(name=name, store=[str(path)], labels=["sick"], classes=["sick"], kind="binary", modality="cxr"))
    return ["one", "two"]


def test_there_is_one_cell_per_encoder_task_and_protocol(tasks):
    cells, after, left_out = list_bench_cells([A, B], tasks, ["knn", "linear"], [], ["--draws", "2"])
    assert [(c.encoder, c.task, c.protocol) for c in cells] == [(e, t, p) for e in (A, B) for t in tasks for p in ("knn", "linear")]
    assert {c.options for c in cells} == {("--baseline", "none", "--draws", "2")}
    assert (after, left_out) == (Dependencies(), {})


def test_default_baselines_have_their_own_cells_and_unavailable_ones_are_named(tasks):
    cells, _, left_out = list_bench_cells([B], ["one"], ["knn"], None)
    assert [c.encoder for c in cells] == [B, A, "pixels"]
    assert [name.partition(":")[0] for name in left_out] == ["imagenet_resnet10t"]
    assert "put" in next(iter(left_out.values()))


def test_an_encoder_in_pretraining_is_waited_for_and_computes_its_baselines(tasks, monkeypatch):
    run = paths.runs_dir() / "mine"
    run.mkdir(parents=True)
    slurm_jobs.record_job(run, "41")
    slurm_jobs.record_job(run, "42")
    monkeypatch.setattr(slurm_jobs, "job_state", lambda job: JobState(job, "PENDING" if job == "42" else "FAILED"))
    cells, after, _ = list_bench_cells(["mine"], ["one"], ["knn"], None)
    assert after.options() == ["--dependency=afterok:42", "--kill-on-invalid-dep=yes"]
    assert [c.arguments for c in cells] == [["--encoder", "mine", "--task", "one", "--protocol", "knn"]]
    with pytest.raises(InputError, match="name the tasks with --task"):
        list_bench_cells(["mine"], [], ["knn"], None)


@pytest.mark.parametrize(
    ("options", "named"),
    [(["--drawz", "2"], "drawz"), (["--draws", "two"], "draws"), (["linear.stepz=9"], "stepz"), (["liner.steps=9"], "liner")],
)
def test_options_that_bench_would_refuse_are_refused_before_the_queue(options, named):
    with pytest.raises(InputError, match=named):
        check_cells([BenchCell("e", "t", "linear", tuple(options))])
    check_cells([BenchCell("e", "t", "linear", ("--draws", "2", "linear.steps=9", "knn.vote=majority"))])


def test_numbers_are_formatted_for_sbatch():
    assert slurm.format_array([0, 1, 2, 3]) == "0-3"
    assert slurm.format_array([7, 0, 1, 4, 4]) == "0-1,4,7"
    assert slurm.format_array([0, 1], at_once=3) == "0-1%3"


def test_an_array_task_computes_an_encoder_and_what_trains_it_has_tasks_of_its_own(tasks):
    cells, _, _ = list_bench_cells([A, B], tasks, ["knn", "linear", "finetune"], [])
    assert group_cells(cells) == [[0, 1, 3, 4], [2], [5], [6, 7, 9, 10], [8], [11]]
    assert group_cells(cells, "task") == [[0, 1], [2], [3, 4], [5], [6, 7], [8], [9, 10], [11]]
    assert group_cells(cells, "cell") == [[i] for i in range(12)]


def test_no_encoder_is_left_out_silently(tasks, monkeypatch):
    same = f"{A},seed=0"
    _, _, left_out = list_bench_cells([B], ["one"], ["knn", "finetune"], None)
    assert left_out["pixels by finetune"] == "it has no network that could be trained"
    monkeypatch.setattr(baselines, "_same_stored_weights", lambda a, b: a.lineage == b.lineage)
    cells, _, left_out = list_bench_cells([A, same, B], ["one"], ["knn"], [])
    assert [cell.encoder for cell in cells] == [A, B]
    assert left_out == {same: f"it is the same encoder as {A}, which is benchmarked once, under that name"}


def test_options_of_tables_go_to_the_job_that_compares_and_files_of_tables_are_refused():
    assert check_cells([BenchCell("e", "t", "knn", ("--margin", "0.01", "--score-by", "study", "--combine", "max"))]) == [
        *("--margin", "0.01", "--score-by", "study", "--combine", "max")
    ]
    assert check_cells([BenchCell("e", "t", "knn")]) == []
    with pytest.raises(InputError, match=r"--csv x.csv: the last job writes table.csv"):
        check_cells([BenchCell("e", "t", "knn", ("--csv", "x.csv"))])


@pytest.fixture
def programs(tmp_path):
    """Runs a script with stand-ins for the commands of a node; `transfer` prints its words, and writes the statuses of cells."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name, text in (
        ("srun", 'while [[ $1 == --* ]]; do shift; done; "$@"'),
        ("transfer", '[ "$1" = bench-cells ] && echo 0 > "$3/$4"; printf "%s\\n" "$@"; exit "${ENDS:-0}"'),
    ):
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)

    def run(script: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_JOB_NODELIST": "n1"} | variables
        return subprocess.run(["bash", script], env=env, capture_output=True, text=True, cwd="/")

    return run


def test_an_array_task_runs_its_cells_and_cells_that_it_did_not_reach_have_its_status(programs):
    folder = bench_folder("mine")
    odd = [BenchCell(e, "a task", "knn", ("it's", "$(rm -rf x)")) for e in "efe"]
    write_bench_folder(folder, odd, Site(partition="gpu", setup=["module load cuda"]), ["--wandb", "--margin", "0.01"])
    assert folder.commands()[1] == odd[1].arguments
    assert folder.array_tasks() == [[0, 2], [1]]
    for name in ("bench.sbatch", "compare.sbatch"):
        text = (folder.path / name).read_text()
        assert "#SBATCH --partition=gpu" in text
        assert subprocess.run(["bash", "-n", folder.path / name]).returncode == 0
        (folder.path / name).write_text(text.replace("module load cuda", "[ $# = 0 ]; echo $NOT_SET; ${LINE:-true}"))
    done = programs(folder.path / "bench.sbatch", SLURM_ARRAY_TASK_ID="0", ENDS="3")
    assert done.stdout.splitlines()[-5:] == ["bench-cells", str(folder.commands_file), str(folder.status_dir), "0", "2"], done.stderr
    assert done.returncode == 3
    assert [folder.exit_status(i) for i in range(3)] == [0, None, 3]
    assert programs(folder.path / "bench.sbatch", SLURM_ARRAY_TASK_ID="1", LINE="no_such_command").returncode == 127
    assert [folder.exit_status(i) for i in range(3)] == [0, 127, 3]
    (paths.records_dir() / "a task").mkdir(parents=True)
    done = programs(folder.path / "compare.sbatch")
    compare, report = done.stdout.split("compare\n")[1].split("report\n")
    assert compare.splitlines()[-3:] == ["--margin", "0.01", "--wandb"], done.stderr
    assert report.splitlines()[-2:] == ["--margin", "0.01"]


def test_only_array_tasks_with_failed_cells_are_resubmitted(monkeypatch):
    folder = bench_folder("mine")
    write_bench_folder(folder, [BenchCell(e, "a", p) for e in "abc" for p in ("knn", "linear")], Site(at_once=2), [])
    assert folder.array_tasks() == [[0, 1], [2, 3], [4, 5]]
    write_json(folder.info_file, {"array": "7", "at_once": 2})
    folder.status_dir.mkdir()
    for i, code in enumerate((0, 1, 0, 0, 0)):
        write_status(folder.status_dir, i, code, "too few\npatients" * code)
    monkeypatch.setattr(slurm_jobs, "job_state", lambda job: JobState(job, "CANCELLED"))
    assert list_unfinished(folder) == [0, 2]
    rows = list_submitted_cells(folder)
    assert [row.state for row in rows] == ["done", "failed (1)", "done", "done", "done", "cancelled"]
    assert [row.task for row in rows] == [0, 0, 1, 1, 2, 2]
    assert rows[1].reason == "too few patients"
    sent = []
    monkeypatch.setattr(slurm, "submit_script", lambda script, *options: sent.append((script.name, *options)) or str(len(sent)))
    resubmit("mine", Dependencies(succeeded=("5",)))
    assert sent == [
        ("bench.sbatch", "--array=0,2%2", "--dependency=afterok:5", "--kill-on-invalid-dep=yes"),
        ("compare.sbatch", "--dependency=afterany:1"),
    ]
    monkeypatch.setattr(slurm_jobs, "job_state", lambda job: JobState(job, "PENDING"))
    assert [row.state for row in list_submitted_cells(folder)][:2] == ["done", "pending"], "a cell that failed waits again"
    with pytest.raises(InputError, match="still in the queue"):
        resubmit("mine", Dependencies())
    monkeypatch.setattr(slurm_jobs, "job_state", lambda job: JobState(job, "COMPLETED"))
    for i in (1, 5):
        write_status(folder.status_dir, i, 0)
    with pytest.raises(InputError, match="every cell of bench 'mine' is done"):
        resubmit("mine", Dependencies())


def test_in_a_running_array_task_the_cells_that_wait_and_those_that_run_are_told_apart(tmp_path, monkeypatch):
    queue = FakeSlurm(tmp_path / "bin", monkeypatch)
    folder = bench_folder("mine")
    write_bench_folder(folder, [BenchCell("e", t, "knn") for t in "abcd"], Site(), [])
    write_json(folder.info_file, {"array": "7"})
    folder.status_dir.mkdir()
    write_status(folder.status_dir, 0, 0)
    write_status(folder.status_dir, 1, 1, "no")
    running_mark(folder.status_dir, 2).touch()
    queue.show("7", job_line(id=7, state="RUNNING", array="ArrayJobId=7 ArrayTaskId=0 "))
    assert [row.state for row in list_submitted_cells(folder)] == ["done", "failed (1)", "running", "after other cells of its array task"]


def test_a_bench_of_an_earlier_version_has_one_array_task_per_cell():
    folder = bench_folder("mine")
    write_bench_folder(folder, [BenchCell("e", t, "knn") for t in "ab"], Site(), [])
    folder.array_file.unlink()
    folder.status_dir.mkdir()
    (folder.status_dir / "0").write_text("0\n")
    assert folder.array_tasks() == [[0], [1]]
    assert list_unfinished(folder) == [1]


def test_a_cell_that_ended_before_its_command_failed_and_the_last_job_is_shown(capsys, tmp_path, monkeypatch):
    queue = FakeSlurm(tmp_path / "bin", monkeypatch)
    folder = bench_folder("mine")
    write_bench_folder(folder, [BenchCell("e", t, "knn") for t in "abcd"], Site(), [], "cell")
    write_json(folder.info_file, {"array": "7", "compare": "20"})
    (folder.path / "slurm-7_0.out").write_text("module: command not found\n")
    states = ["FAILED", "RUNNING", "PENDING", "PENDING"]
    lines = [job_line(id=8 + i, state=s, code=127 * (s == "FAILED"), array=f"ArrayJobId=7 ArrayTaskId={i} ") for i, s in enumerate(states)]
    queue.show("7", *lines)
    queue.show("20", job_line(id=20, state="PENDING", reason="Dependency"))
    assert [row.state for row in list_submitted_cells(folder)] == ["failed (exit status 127)", "running", "pending", "pending"]
    with pytest.raises(typer.Exit):
        print_jobs("mine")
    out, err = capsys.readouterr()
    assert "last job, which compares the results: 20 PENDING (Dependency)" in out
    assert err.splitlines()[0] == "cell 0: module: command not found"
    write_bench_folder(bench_folder("other"), [BenchCell("e", "a", "knn")], Site(), [])
    with pytest.raises(typer.Exit):
        print_jobs()  # all
    overview = " ".join(capsys.readouterr().out.split())
    assert "mine 4 2 pending, 1 failed (exit status 127), 1 running 20 PENDING (Dependency)" in overview
    assert "other 1 1 not ended" in overview


def test_the_reason_of_a_failed_cell_is_printed(capsys):
    folder = bench_folder("mine")
    write_bench_folder(folder, [BenchCell("e", t, "knn") for t in "abcd"], Site(), [], "cell")
    write_json(folder.info_file, {"array": "7"})
    folder.status_dir.mkdir()
    logs = {0: "computing\nerror: the encoder has seen 3 test images\nleft the node\n", 1: "Traceback\nValueError: no\n\n", 2: "", 3: "x"}
    for i, text in logs.items():
        (folder.path / f"slurm-7_{i}.out").write_text(text)
        (folder.status_dir / str(i)).write_text("2\n" if i < 3 else "2\nthe reason of this cell\n")
    with pytest.raises(typer.Exit):
        print_jobs("mine")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["cell 0: error: the encoder has seen 3 test images", "cell 1: ValueError: no"]
    assert lines[2] == "cell 3: the reason of this cell", "an empty log has no reason"
    assert lines[3].startswith("4 of 4 cells failed")


def test_a_bench_with_other_cells_needs_another_name():
    write_bench_folder(bench_folder("mine"), [BenchCell("e", "a", "knn")], Site(), [])
    with pytest.raises(InputError, match="other cells"):
        write_bench_folder(bench_folder("mine"), [BenchCell("e", "b", "knn")], Site(), [])
    with pytest.raises(InputError, match="did you mean mine"):
        find_bench_folder("mina")
    with pytest.raises(InputError, match="is not a valid bench name"):
        bench_folder("../x")
