"""Two processes write the same thing at the same moment: one wins, the other waits, does nothing or is refused in one sentence."""

import json
import re

import h5py
import numpy as np
import pytest
import safetensors.numpy

from encoders.runtime.cli import run_cli
from encoders.runtime.exclusive import exclusive_work
from encoders.runtime.files import sha256_file
from encoders.runtime.paths import cache_dir, home_dir, runs_dir, zoo_dir
from encoders.runtime.slurm_site import Site
from encoders.zoo import zoo
from encoders.zoo.card import Card
from pretrain.run.rundir import find_run
from tests.fake_slurm import FakeSlurm, job_line
from tests.faults.commands import BENCH, PRETRAIN, call
from tests.forked import run_together
from tests.pretrain import runs, starts
from transfer.bench.bench_folder import bench_folder
from transfer.bench.dependencies import Dependencies
from transfer.bench.slurm_array import BenchCell, submit_array, write_bench_folder
from transfer.records.ledger import append_to_ledger, read_ledger_lines
from transfer.records.record import find_records, read_record


@pytest.fixture
def together(tmp_path, monkeypatch):
    """Runs commands at the same moment, in the folder of the test; returns how they ended."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(*commands):
        env = {"ISOGRAFT_HOME": str(home_dir()), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1"}
        return run_together([(call, tuple(map(str, words))) for words in commands], tmp_path / "log", env)

    return run


def one_line(ended):
    """The sentence of a refusal."""
    (line,) = [line for line in ended.errors.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in ended.errors
    return line


def left_parts(*folders):
    return [path.name for folder in folders for path in folder.rglob(".*.part")]


@pytest.mark.long
def test_the_same_run_is_trained_by_one_and_refused_to_the_other(together, tmp_path):
    runs.store(tmp_path, n=40, size=32)
    ended = together(("pretrain", *PRETRAIN), ("pretrain", *PRETRAIN))
    assert sorted(one.status for one in ended) == [0, 2], ended
    said = one_line(next(one for one in ended if one.status))
    assert any(words in said for words in ("was started by another process", "is locked by process", "exists and is not finished")), said
    assert find_run("small").read()["status"] == "finished"
    steps = [json.loads(line)["step"] for line in (runs_dir() / "small" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3]
    assert Card.read(zoo_dir() / "small" / "card.yaml").sha256 == sha256_file(zoo_dir() / "small" / "model.safetensors")
    assert left_parts(runs_dir(), zoo_dir()) == []


@pytest.mark.long
def test_the_same_store_is_ingested_by_one_and_refused_to_the_other(together, tmp_path):
    words = ("encoders", "ingest", "phantom", "out.h5", "--patients", 8, "--size", 32, "--workers", 1)
    ended = together(words, words)
    assert sorted(one.status for one in ended) == [0, 2], ended
    said = one_line(next(one for one in ended if one.status))
    assert "another ingest is writing" in said or "exists; write to another name" in said, said
    with h5py.File(tmp_path / "out.h5") as file:
        assert len(file["images"]) == len(file["index/key"]) > 8
    assert left_parts(tmp_path) == []


@pytest.mark.long
@pytest.mark.parametrize("same", [True, False])
def test_a_name_of_the_zoo_belongs_to_the_first(together, same):
    starts.publish("start")
    starts.publish("second", seed=4)
    imports = [("encoders", "import", zoo_dir() / own / "model.safetensors", "--card", zoo_dir() / own / "card.yaml", "--name", "both")
               for own in ("start", "start" if same else "second")]  # fmt: skip
    ended = together(*imports)
    assert sorted(one.status for one in ended) == [0, 0 if same else 2], ended
    if not same:
        assert "the zoo has another encoder called both" in one_line(next(one for one in ended if one.status))
    winner = next(i for i, one in enumerate(ended) if one.status == 0)
    own = zoo_dir() / ("start" if winner == 0 or same else "second") / "model.safetensors"
    assert (zoo_dir() / "both" / "model.safetensors").read_bytes() == own.read_bytes()
    assert sha256_file(zoo_dir() / "both" / "model.safetensors") == Card.read(zoo_dir() / "both" / "card.yaml").sha256
    zoo.load_encoder("both")
    assert left_parts(zoo_dir()) == []


@pytest.mark.long
def test_an_exported_folder_is_that_of_one_of_both(together, tmp_path):
    starts.publish("start")
    starts.publish("second", seed=4)
    ended = together(("encoders", "export", "start", "out"), ("encoders", "export", "second", "out"))
    assert [one.status for one in ended] == [0, 0], ended
    card = Card.read(tmp_path / "out" / "card.yaml")
    own = safetensors.numpy.load_file(zoo_dir() / card.name / "model.safetensors")
    exported = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
    assert own.keys() == exported.keys()
    assert all(np.array_equal(own[name], exported[name]) for name in own)
    assert f"# {card.name}" in (tmp_path / "out" / "README.md").read_text()
    assert left_parts(tmp_path) == []


@pytest.mark.long
def test_the_same_features_are_cached_by_both_and_a_bench_of_both_gives_the_same_records(together, tmp_path):
    runs.store(tmp_path, n=60, size=32)
    call("transfer", "tasks", "add", "finding", "images.h5", "--label", "finding")
    words = (*BENCH, "--csv", "t.csv")
    ended = together(words, words)
    assert [one.status for one in ended] == [0, 0], ended
    first, second = (re.sub(r"at least \d+ times?.*", "", one.printed) for one in ended)  # uses of the test split: one more for the second
    assert first == second
    assert [read_record(path).meta.status for path in find_records()] == ["ok"]
    assert len(list((cache_dir() / "features").glob("*.npy"))) == 1
    assert left_parts(tmp_path, home_dir(), cache_dir()) == []


def _append_many(path, own):
    for i in range(100):
        append_to_ledger({"own": own, "i": i}, path)


def test_no_line_of_the_ledger_is_lost(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ended = run_together([(_append_many, (path, own)) for own in range(2)], tmp_path / "log")
    assert [one.status for one in ended] == [0, 0], ended
    entries, unreadable = read_ledger_lines(path)
    assert unreadable == 0
    assert sorted((entry["own"], entry["i"]) for entry in entries) == [(own, i) for own in range(2) for i in range(100)]


def _submit(run):
    from pretrain.run.slurm_job import submit_job

    print(submit_job(run, "#!/bin/bash\n")[0])


def _submit_bench():
    folder = bench_folder("b")
    with exclusive_work(folder.path, "submitting bench 'b'"):
        numbers = write_bench_folder(folder, [BenchCell("e", "t", "knn", ())], Site(), [])
        submit_array(folder, numbers, Dependencies())


@pytest.mark.parametrize("what", ["run", "bench"])
def test_a_run_or_bench_is_submitted_once(together, tmp_path, monkeypatch, what):
    slurm = FakeSlurm(tmp_path / "bin", monkeypatch)
    queue = tmp_path / "bin" / "queue"
    slurm.show(7, job_line(id=7, state="PENDING"))
    slurm._write("sbatch", f'sleep .3; echo x >> "{queue}"; echo 7')
    slurm._write("squeue", "true")
    work = (_submit_or_refuse, (_submit, "small") if what == "run" else (_submit_bench,))
    ended = run_together([work, work], tmp_path / "log", {"ISOGRAFT_HOME": str(home_dir())})
    assert sorted(one.status for one in ended) == [0, 2], ended
    said = next(one for one in ended if one.status).errors
    assert "another process is submitting" in said or "in the queue" in said
    assert queue.read_text().count("x") == (1 if what == "run" else 2)  # the array, and the job that compares
    assert [path.name for path in home_dir().rglob(".*.lock")] == []


def _submit_or_refuse(work, *given):
    def main():
        work(*given)

    run_cli(main)
