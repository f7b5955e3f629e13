"""A cell of a benchmark that trains its encoder goes on after an interruption, and leaves its validations in the ledger."""

import os
import signal

import numpy as np
import pytest

from encoders.runtime.errors import InputError
from encoders.runtime.paths import cache_dir, records_dir
from tests.forked import run_forked
from tests.transfer.trained.cases import QUICK, START, toy_task
from transfer.bench.bench import BenchRequest, plan_bench, run_bench
from transfer.protocols import finetune_training
from transfer.records.ledger import read_ledger_lines
from transfer.records.record import find_records
from transfer.records.validation_looks import VALIDATION_LEDGER

EIGHT = (*QUICK, "finetune.min_steps=8", "finetune.max_steps=8", "finetune.evaluations=4")


class CountedSteps:
    """Counts the training steps, and ends the process or the training in one of them."""

    def __init__(self, stop=-1, end=None):
        self.stop, self.end, self.taken, self.real = stop, end, 0, finetune_training.training_step

    def __call__(self, *given):
        self.taken += 1
        if self.taken == self.stop:
            self.end()
        return self.real(*given)


def interrupt():
    raise KeyboardInterrupt


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def bench(log=lambda text: None, **fields):
    request = BenchRequest(
        **{"encoders": [START], "baselines": [], "protocols": ["finetune"], "overrides": EIGHT, "near_duplicates": False, **fields}
    )
    return run_bench(request, plan_bench(request, lambda text: None), log)


def saved_states():
    folder = cache_dir() / "trainings"
    return sorted(folder.rglob("*.*")) if folder.is_dir() else []


def looks():
    return [line["looks"] for line in read_ledger_lines(records_dir() / VALIDATION_LEDGER)[0]]


def stop_in(monkeypatch, step, **fields):
    """Interrupts the benchmark in a step of training."""
    monkeypatch.setattr(finetune_training, "training_step", counter := CountedSteps(step, interrupt))
    with pytest.raises(KeyboardInterrupt):
        bench(**fields)
    monkeypatch.setattr(finetune_training, "training_step", counter.real)


def count_steps_of(monkeypatch, **fields):
    """The result of a benchmark, and the training steps that it took."""
    monkeypatch.setattr(finetune_training, "training_step", counter := CountedSteps())
    result = bench(**fields)
    monkeypatch.setattr(finetune_training, "training_step", counter.real)
    return result, counter.taken


def test_an_interrupted_cell_goes_on_from_its_last_validation(tmp_path, monkeypatch):
    toy_task(tmp_path)
    (whole,) = bench().records
    assert not saved_states()
    stop_in(monkeypatch, 6, recompute=True)
    assert len(saved_states()) == 1
    notes = []
    again, taken = count_steps_of(monkeypatch, recompute=True, log=notes.append)
    assert taken == 4, "from the validation after step 4"
    assert any("goes on from where it was interrupted" in note for note in notes)
    (record,) = again.records
    assert record.meta.selection == whole.meta.selection
    assert record.meta.cost == whole.meta.cost
    for part in ("val", "test"):
        np.testing.assert_array_equal(record.arrays[f"{part}_scores"], whole.arrays[f"{part}_scores"])
    assert not saved_states(), "removed when the record is written"
    assert looks() == [4, 4]


def test_the_state_of_other_settings_and_of_other_patients_is_ignored(tmp_path, monkeypatch):
    toy_task(tmp_path)
    stop_in(monkeypatch, 6)
    (state,) = saved_states()
    _, taken = count_steps_of(monkeypatch, overrides=[*EIGHT, "finetune.head_lr=2"])
    assert taken == 8
    _, taken = count_steps_of(monkeypatch, seed=1)
    assert taken == 8
    _, taken = count_steps_of(monkeypatch, patients=[10], fractions=[])
    assert taken == 8
    assert saved_states() == [state]
    assert count_steps_of(monkeypatch)[1] == 4
    assert not saved_states()


def test_a_cell_under_shifts_shares_the_state_of_the_unchanged_one(tmp_path, monkeypatch):
    toy_task(tmp_path)
    stop_in(monkeypatch, 6)
    result, taken = count_steps_of(monkeypatch, shifts=[("gamma", 1)])
    assert taken == 4
    assert len(result.records) == 2
    assert looks() == [4], "one training"


def killed_bench():
    finetune_training.training_step = CountedSteps(6, kill)
    bench()


@pytest.mark.slow
def test_a_killed_cell_goes_on(tmp_path, monkeypatch):
    toy_task(tmp_path)
    died = run_forked(killed_bench, logs=tmp_path / "log")
    assert died.status == -signal.SIGKILL, died.errors
    assert not find_records()
    resumed, taken = count_steps_of(monkeypatch)
    assert taken == 4
    whole = bench(recompute=True)
    np.testing.assert_array_equal(resumed.records[0].arrays["test_scores"], whole.records[0].arrays["test_scores"])


def test_the_name_of_a_search_in_records_is_no_protocol_to_run(tmp_path):
    toy_task(tmp_path)
    with pytest.raises(InputError, match="write --protocol finetune --search SPACE --trials 20"):
        bench(protocols=["finetune~best20"])
