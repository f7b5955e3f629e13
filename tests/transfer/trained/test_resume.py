"""A training that was interrupted goes on from its last validation and ends as one that was not, bit for bit."""

import signal

import pytest

from encoders.runtime.paths import cache_dir, zoo_dir
from tests.forked import run_forked
from tests.transfer.stop_at import StopAt
from tests.transfer.trained.cases import QUICK, START, toy_task, train
from transfer.protocols import finetune_training

EIGHT = (*QUICK, "finetune.min_steps=8", "finetune.max_steps=8", "finetune.evaluations=4")


def saved_files():
    return list((cache_dir() / "trainings").glob("*")) if (cache_dir() / "trainings").is_dir() else []


EARLY = ("finetune.patience=1", "finetune.ema=0")
MIXED = ("finetune.mixup.alpha=0.4", "finetune.cutmix.alpha=1", "finetune.mixing.p=0.8")


@pytest.mark.parametrize(
    ("strategy", "more"),
    [("full", ()), ("lpft", ()), ("gradual", ()), ("lora=2", ()), ("l2sp", ()), ("wise", ()), ("lpft", EARLY), ("full", MIXED)],
)
def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path, monkeypatch, strategy, more):
    toy_task(tmp_path)
    whole = train("whole", strategy=strategy, overrides=(*EIGHT, *more))
    assert not saved_files()
    steps = 0
    for stop in (4, 3):  # within the second interval, and once more in a later one
        counter = StopAt(stop)
        monkeypatch.setattr(finetune_training, "training_step", counter)
        try:
            train("again", strategy=strategy, overrides=(*EIGHT, *more))
        except KeyboardInterrupt:
            assert len(saved_files()) == 1
        monkeypatch.setattr(finetune_training, "training_step", counter.real)
        steps += counter.taken
    if not (zoo_dir() / "again").exists():
        notes = []
        again = train("again", strategy=strategy, overrides=(*EIGHT, *more), log=notes.append)
        assert any(note.startswith("an interrupted training of these settings and images goes on from step") for note in notes)
        assert again.selection == whole.selection
        assert again.cost == whole.cost
        assert again.card.sha256 == whole.card.sha256
        assert again.card.head == whole.card.head
        assert not saved_files()
    else:
        assert more  # early stopping ended it before the second interruption
        assert train("third", strategy=strategy, overrides=(*EIGHT, *more)).card.sha256 == whole.card.sha256


def kill_training(step, more):
    finetune_training.training_step = StopAt(step, kill=True)
    train("killed", overrides=(*EIGHT, *more))


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), MIXED])
def test_a_killed_training_leaves_no_encoder_and_goes_on(tmp_path, more):
    toy_task(tmp_path)
    whole = train("whole", overrides=(*EIGHT, *more))
    died = run_forked(kill_training, 6, more, logs=tmp_path / "log")
    assert died.status == -signal.SIGKILL, died.errors
    assert not (zoo_dir() / "killed").exists()
    counter = StopAt(-1)
    finetune_training.training_step, real = counter, finetune_training.training_step
    try:
        done = train("killed", overrides=(*EIGHT, *more))
    finally:
        finetune_training.training_step = real
    assert counter.taken == 4  # from the validation after step 4
    assert done.card.sha256 == whole.card.sha256
    assert done.selection == whole.selection


def test_other_settings_and_a_damaged_state_start_from_the_beginning(tmp_path, monkeypatch):
    toy_task(tmp_path)
    whole = train("whole", overrides=EIGHT)
    monkeypatch.setattr(finetune_training, "training_step", counter := StopAt(6))
    with pytest.raises(KeyboardInterrupt):
        train("stopped", overrides=EIGHT)
    monkeypatch.setattr(finetune_training, "training_step", counter.real)
    (file,) = saved_files()
    notes = []
    train("other", seed=1, overrides=EIGHT, log=notes.append)
    train("linear", strategy="linear", overrides=EIGHT, log=notes.append)
    train("child", encoder="other", overrides=EIGHT, log=notes.append)
    assert not any("goes on" in note for note in notes)
    file.write_bytes(file.read_bytes()[:-100])
    assert train("stopped", overrides=EIGHT, log=notes.append).card.sha256 == whole.card.sha256
    assert not any("goes on" in note for note in notes)
    assert whole.card.lineage["init"] == START
