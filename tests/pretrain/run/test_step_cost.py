"""The measured cost of a step: at the run's own batch, with its spread; memory as the process of a real run has it."""

import mmap
import subprocess
import sys

import numpy as np
import pytest

from encoders.runtime import peak_memory as memory
from encoders.runtime.allocator import release_freed_memory
from encoders.runtime.errors import InputError
from pretrain.loop.setup import build_setup
from pretrain.run import step_cost
from pretrain.run.plan import describe_cost, list_cost_warnings, plan_run
from pretrain.run.step_cost import MeasurementRequest, StepCost, measure_here, measure_step_cost
from tests.pretrain.runs import METHODS, recipe, store

MOCO = METHODS["moco"]
COST = StepCost(seconds=[2.0, 1.0, 4.0], waited=0.25, cpu_share=0.95, memory=3.25, available=8.0, took=12.3)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return store(tmp_path_factory.mktemp("cost"))


def completed(images, *more):
    setup = build_setup(recipe(images, MOCO, *more), "cpu")
    setup.batches.close()
    return setup.recipe


def test_peak_memory_is_that_of_this_process_and_not_of_the_one_that_started_it():
    """`ru_maxrss` of a child begins at the memory of its parent."""
    block = np.ones(300 * 2**20 // 8)
    assert memory.peak_memory() > block.nbytes / 2**30
    child = "from encoders.runtime.peak_memory import peak_memory; print(peak_memory())"
    assert float(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True).stdout) < 0.25


def test_the_peak_grows_with_what_is_held_and_falls_back_only_when_it_is_reset():
    assert memory.reset_peak_memory()
    before = memory.peak_memory()
    with mmap.mmap(-1, 2**28) as block:  # not from the allocator, which may take what an earlier test freed, and keep it
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        held = memory.peak_memory()
    assert held > before + 0.2
    assert memory.peak_memory() == pytest.approx(held, abs=0.02)
    assert memory.reset_peak_memory()
    assert memory.peak_memory() < held - 0.2


def test_memory_of_this_machine_is_positive_and_within_a_groups_limit(tmp_path, monkeypatch):
    free = memory.available_memory()
    assert 0 < free < 2**14
    real = memory.Path

    def path(text):
        return real(tmp_path / text.rpartition("/")[2]) if text.startswith("/sys/fs/cgroup") else real(text)

    (tmp_path / "memory.max").write_text(f"{3 * 2**28}\n")
    (tmp_path / "memory.current").write_text(f"{2**28}\n")
    monkeypatch.setattr(memory, "Path", path)
    assert memory.available_memory() == pytest.approx(0.5)
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_memory() > 0.5 or free < 0.6


@pytest.mark.parametrize(("batch", "accumulate", "step"), [(16, 1, 16), (16, 2, 16), (32, 4, 16)])
def test_a_step_is_measured_at_the_runs_own_micro_batch(images, monkeypatch, batch, accumulate, step):
    """Two micro-batches stand for more: the time is then multiplied."""
    seen = []
    real = step_cost.build_setup
    monkeypatch.setattr(step_cost, "build_setup", lambda r, d: seen.append((r.batch, r.accumulate)) or real(r, d))
    cost = measure_here(
        MeasurementRequest(recipe=completed(images, f"batch={batch}", f"accumulate={accumulate}"), device="cpu", threads=1, budget=60.0)
    )
    assert seen == [(step, min(accumulate, 2))]
    assert len(cost.seconds) == 4
    assert cost.extrapolated is None
    assert cost.memory == pytest.approx(memory.peak_memory(), abs=0.05)


def test_time_of_more_micro_batches_than_were_measured_is_multiplied(images, monkeypatch):
    monkeypatch.setattr(step_cost, "_time_steps", lambda *_: COST)
    cost = measure_here(MeasurementRequest(recipe=completed(images, "batch=32", "accumulate=8"), device="cpu", threads=1, budget=60.0))
    assert cost.seconds == [8.0, 4.0, 16.0]
    assert cost.median == 8.0


@pytest.mark.parametrize(
    ("budget", "free", "measured", "reason"),
    [
        (60.0, 100.0, [8, 16, 64], None),
        (23.9, 100.0, [8, 16], "its steps would take about 24 s"),  # 3 steps x 4 times 2 s
        (60.0, 8.0, [8, 16], "about 8.0 GiB would not fit into the 8.0 GiB available"),
        (60.0, None, [8, 16, 64], None),
    ],
)
def test_what_is_too_slow_or_too_large_is_extrapolated_from_two_small_batches(images, monkeypatch, budget, free, measured, reason):
    """Trials of 1 + batch / 8 ... GiB and of batch / 8 seconds per step: 2 GiB at 16 images and 8 GiB at 64."""
    seen = []

    def trial(setup, most, limit):
        batch = setup.recipe.batch
        seen.append(batch)
        setup.batches.close()
        return StepCost(seconds=[batch / 8, batch / 8], waited=0.0, memory=batch / 8, available=None)

    monkeypatch.setattr(step_cost, "_time_steps", trial)
    monkeypatch.setattr(step_cost, "available_memory", lambda: free)
    cost = measure_here(MeasurementRequest(recipe=completed(images, "batch=64"), device="cpu", threads=1, budget=budget))
    assert seen == measured
    assert cost.extrapolated == reason
    assert (cost.memory, cost.median) == (8.0, 8.0)


def test_steps_end_with_the_budget_but_not_before_two(images):
    setup = build_setup(completed(images), "cpu")
    assert len(step_cost._time_steps(setup, 4, 0.0).seconds) == 2


def test_the_cost_is_measured_in_this_process_and_counts_no_memory_that_was_freed_before(images, monkeypatch):
    monkeypatch.setattr(step_cost, "_measure_in_own_process", lambda request: pytest.fail("a process takes four seconds to start"))
    release_freed_memory()
    assert memory.reset_peak_memory()
    before = memory.peak_memory()
    block = np.ones(2**30 // 8)
    assert memory.peak_memory() > before + 0.9
    del block
    cost = measure_step_cost(completed(images), "cpu")
    assert len(cost.seconds) == 4
    assert cost.memory < before + 0.5


def test_the_measuring_process_gives_the_cost_and_passes_on_errors(images, tmp_path, monkeypatch):
    monkeypatch.setattr(step_cost, "reset_peak_memory", lambda: False)  # as on macOS
    cost = measure_step_cost(completed(images), "cpu")
    assert len(cost.seconds) == 4
    assert min(cost.seconds) > 0
    assert 0.2 < cost.memory < 4
    assert cost.took > sum(cost.seconds)
    with pytest.raises(InputError, match="batch=200 is more than the 80 images"):
        measure_step_cost(completed(images).model_copy(update={"batch": 200, "method": {"name": "simclr"}}), "cpu")
    (tmp_path / "killed").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "killed").chmod(0o755)
    monkeypatch.setattr(step_cost.sys, "executable", str(tmp_path / "killed"))
    with pytest.raises(InputError, match="was ended by signal 9: probably they do not fit into memory; raise accumulate"):
        measure_step_cost(completed(images), "cpu")


def test_the_plan_states_median_range_memory_and_its_own_duration(images):
    rows = dict(describe_cost(COST, completed(images), 100, "cpu"))
    assert rows == {
        "speed": "8 images/s, 2.00 s per step (median of 3 steps, 1.00 to 4.00 s), 25 % of it waiting for data",
        "memory": "3.2 GiB at the peak; 8.0 GiB are free now",
        "time": "3:20 for 100 steps on this cpu, 1:40 to 6:40 if all steps were as the fastest or slowest",
        "measured": "in 12 s",
    }
    long = COST.model_copy(update={"extrapolated": "its steps would take about 90 s"})
    rows = dict(describe_cost(long, completed(images, "data.workers=2"), 100, "cpu"))
    assert rows["measured"] == "in 12 s with batches of 8 and 16 images, because its steps would take about 90 s"
    assert "extrapolated from 3 steps" in rows["speed"]
    assert rows["memory"] == "3.2 GiB at the peak, and that of 2 loader processes; 8.0 GiB are free now"


def test_a_cost_that_is_not_reliable_or_does_not_fit_is_noted():
    steady = COST.model_copy(update={"seconds": [1.0, 1.2]})
    assert list_cost_warnings(steady) == []
    assert "differ by more than half" in list_cost_warnings(COST)[0]
    busy = list_cost_warnings(steady.model_copy(update={"cpu_share": 0.5}))
    assert "had 50 % of the time of their CPU threads" in busy[0]
    assert "about 0.55 s" in busy[0]
    assert "about 9.0 GiB and 8.0 GiB are available: lower batch" in list_cost_warnings(steady.model_copy(update={"memory": 9.0}))[0]


def test_a_plan_has_sizes_cost_and_notes(images):
    rows, notes, *_ = plan_run(recipe(images, MOCO), "cpu")
    assert [name for name, _ in rows][-4:] == ["speed", "memory", "time", "measured"]
    assert any("images" in note or "EMA" in note for note in notes)
