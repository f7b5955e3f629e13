"""What a submitted benchmark waits for, and that no run of a sweep is left out silently."""

from types import SimpleNamespace

import pytest

from encoders.runtime import paths, slurm_jobs
from encoders.runtime.errors import InputError
from encoders.runtime.sweep_folder import SweepFolder, SweepInfo, SweepRun, expand_sweeps
from encoders.zoo.zoo import find_encoder
from tests.fake_slurm import FakeSlurm, job_line
from transfer.bench import slurm_array
from transfer.bench.dependencies import Dependencies, depend_on_job, parse_after


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """A sweep of three runs: a is finished, b runs, c failed. And a run `alone` whose job waits."""
    slurm = FakeSlurm(tmp_path / "bin", monkeypatch)
    names = ["s_a", "s_b", "s_c"]
    info = SweepInfo(recipe="r", overrides=[], keys=["x"], runs=[SweepRun(name=name, settings=[]) for name in names])
    SweepFolder(paths.sweeps_dir() / "s").write(info)
    jobs = {"s_a": ("12_0", "COMPLETED"), "s_b": ("12_1", "RUNNING"), "s_c": ("12_2", "FAILED"), "alone": ("40", "PENDING")}
    for name, (job, state) in jobs.items():
        (paths.runs_dir() / name).mkdir(parents=True)
        slurm_jobs.record_job(paths.runs_dir() / name, job)
        slurm.show(job, job_line(state=state))
    (paths.zoo_dir() / "s_a").mkdir(parents=True)
    (paths.zoo_dir() / "s_a" / "card.yaml").touch()
    return slurm


def test_jobs_and_runs_must_succeed_and_runs_of_a_sweep_must_end(sweep):
    found, encoders = parse_after(["9", "s", "alone", "12_7", "9"])
    assert found == Dependencies(succeeded=("9", "40", "12_7"), ended=("12_1",))
    assert encoders == ["s", "alone"]
    assert found.options() == [f"--dependency=afterok:{':'.join(found.succeeded)},afterany:12_1", "--kill-on-invalid-dep=yes"]
    assert Dependencies().options() == []
    assert depend_on_job("12_1") + depend_on_job("40") + depend_on_job("12_1") == Dependencies(("40",), ("12_1",))


def test_a_sweep_whose_runs_have_ended_is_not_waited_for(sweep):
    sweep.show("12_1", job_line(state="COMPLETED"))
    assert parse_after(["s"]) == (Dependencies(), ["s"])


@pytest.mark.parametrize("name", ["sx", "nothing", "12-3", ""])
def test_another_name_is_an_error(sweep, name):
    with pytest.raises(InputError, match="no job, run or sweep called"):
        parse_after([name])


def test_a_command_for_one_encoder_names_the_runs_of_a_sweep(sweep):
    with pytest.raises(InputError, match="it is a sweep; name one of its runs: s_a, s_b, s_c"):
        find_encoder("s")


def test_a_run_of_a_sweep_whose_job_ends_while_cells_are_listed_keeps_its_cells(sweep, monkeypatch):
    monkeypatch.setattr(slurm_array, "choose_tasks", lambda *_: [SimpleNamespace(name="view")])
    names = expand_sweeps(["s"], missing := [])[1:]
    assert slurm_array.list_bench_cells(names, ["view"], ["knn"], [], expected=missing)[1] == Dependencies(ended=("12_1",))
    sweep.show("12_1", job_line(state="FAILED"))
    cells, jobs, left_out = slurm_array.list_bench_cells(names, ["view"], ["knn"], [], expected=missing)
    assert [cell.encoder for cell in cells] == ["s_b", "s_c"]
    assert (jobs, left_out) == (Dependencies(), {})


def test_a_sweep_stands_for_its_encoders_and_a_missing_one_is_named(sweep):
    with pytest.raises(InputError, match=r"2 of 3 runs of sweep 's' have no encoder: s_b, s_c; .* --encoder s_a$"):
        expand_sweeps(["s"])
    missing = []
    assert expand_sweeps(["x", "s", "s_b"], missing) == ["x", "s_a", "s_b", "s_c"]
    assert missing == ["s_b", "s_c"]
    (paths.zoo_dir() / "s").mkdir()
    with pytest.raises(InputError, match="write zoo/s for the encoder"):
        expand_sweeps(["s"])
