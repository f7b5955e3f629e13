"""What SLURM says about jobs, read from its own format."""

from pathlib import Path

import pytest

from encoders.runtime import log_tail, slurm_jobs
from tests.fake_slurm import FakeSlurm, job_line


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    return FakeSlurm(tmp_path / "bin", monkeypatch)


@pytest.mark.parametrize(
    ("line", "text", "active", "bad"),
    [
        (job_line(state="PENDING", reason="Resources"), "PENDING (Resources)", True, False),
        (job_line(state="PENDING", reason="JobHeldUser"), "PENDING (JobHeldUser)", True, False),
        (job_line(state="PENDING", reason="BeginTime", restarts=1), "PENDING (BeginTime), requeued once", True, False),
        (job_line(state="PENDING", reason="launch_failed_requeued_held"), "PENDING (launch failed requeued held)", True, False),
        (job_line(state="RUNNING", restarts=3), "RUNNING, requeued 3 times", True, False),
        (job_line(state="FAILED", reason="NonZeroExitCode", code=127), "FAILED (exit status 127)", False, True),
        (job_line(state="COMPLETED"), "COMPLETED", False, False),
        (job_line(state="OUT_OF_MEMORY", code=0), "OUT_OF_MEMORY", False, True),
        (job_line(state="CANCELLED"), "CANCELLED", False, True),
    ],
)
def test_a_job_is_described_by_its_state_and_what_explains_it(slurm, line, text, active, bad):
    slurm.show("2", line)
    state = slurm_jobs.job_state("2")
    assert (state.describe(), state.is_active, state.has_ended_badly) == (text, active, bad)
    assert state.log == Path("/work/a b/slurm-2.out")


def test_a_job_that_the_controller_has_forgotten_is_looked_up_in_the_accounting(slurm):
    slurm.end("3", "CANCELLED by 1000|0:0")
    slurm.end("4", "FAILED|2:0")
    assert slurm_jobs.job_state("3").describe() == "CANCELLED"
    assert slurm_jobs.job_state("4").describe() == "FAILED (exit status 2)"
    unknown = slurm_jobs.job_state("5")
    assert (unknown.describe(), unknown.is_active, unknown.has_ended_badly) == ("", False, False)


def test_the_elements_of_an_array_come_from_one_answer(slurm):
    waiting = job_line(state="PENDING", reason="JobArrayTaskLimit", array="ArrayJobId=7 ArrayTaskId=3,5-6%2 ArrayTaskThrottle=2 ")
    slurm.show(
        "7", waiting, *(job_line(id=8 + i, array=f"ArrayJobId=7 ArrayTaskId={i} ", state=s) for i, s in ((0, "FAILED"), (1, "RUNNING")))
    )
    states = slurm_jobs.array_states("7")
    assert {i: state.state for i, state in states.items()} == {0: "FAILED", 1: "RUNNING", 3: "PENDING", 5: "PENDING", 6: "PENDING"}


def test_the_newest_active_job_of_a_folder_is_found(slurm, tmp_path):
    for job in ("11", "12", "13"):
        slurm_jobs.record_job(tmp_path, job)
    assert slurm_jobs.list_jobs(tmp_path) == ["11", "12", "13"]
    assert slurm_jobs.find_active_job(tmp_path) is None
    slurm.show("11", job_line(state="RUNNING"))
    slurm.show("12", job_line(state="PENDING"))
    slurm.show("13", job_line(state="TIMEOUT"))
    assert slurm_jobs.find_active_job(tmp_path) == "12"


def test_a_controller_that_does_not_answer_is_given_up(slurm, monkeypatch):
    (slurm.folder / "scontrol").write_text("#!/bin/sh\nexec sleep 30\n")
    monkeypatch.setattr(slurm_jobs, "QUERY_TIMEOUT_S", 0.2)
    assert slurm_jobs.job_state("2").state == ""


def test_the_end_of_a_log_has_no_empty_lines_and_the_last_state_of_a_progress_bar(tmp_path):
    log = tmp_path / "a.out"
    log.write_bytes(b"one\n\n 10 %\r 20 %\r100 %\n\xff bad byte\nerror: no space left\nleft the node\n\n")
    assert log_tail.read_log_tail(log, 3) == ["\ufffd bad byte", "error: no space left", "left the node"]
    assert log_tail.read_log_tail(log)[1] == "100 %"
    assert log_tail.read_failure_reason(log) == "error: no space left"
    assert log_tail.read_log_tail(tmp_path / "none") == []
    assert log_tail.read_log_tail(log, 0) == []
