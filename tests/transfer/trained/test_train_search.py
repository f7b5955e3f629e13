"""`transfer train --search`: the network of the best trial is kept, and its card says that it is the best of several."""

import pytest
import yaml
from typer.testing import CliRunner

from encoders.runtime.paths import cache_dir, records_dir, zoo_dir
from tests.transfer.trained.cases import QUICK, START, toy_task, train
from transfer.cli.main import app
from transfer.protocols import finetune_training
from transfer.records.ledger import read_ledger, read_ledger_lines
from transfer.records.validation_looks import VALIDATION_LEDGER

THREE = (*QUICK, "finetune.evaluations=3", "finetune.patience=3")
SEARCH = (*THREE, "finetune.search.space=lr=1e-4..1e-2,head_lr", "finetune.search.trials=3")


def test_the_kept_network_is_that_of_the_settings_that_were_chosen(tmp_path):
    toy_task(tmp_path)
    found = train("searched", overrides=SEARCH)
    settings = found.selection["search"]["settings"]
    alone = train("alone", overrides=(*THREE, *(f"finetune.{name}={value}" for name, value in settings.items())))
    assert found.card.sha256 == alone.card.sha256
    assert found.card.head.validation_score == alone.card.head.validation_score
    card = yaml.safe_load((zoo_dir() / "searched" / "card.yaml").read_text())
    assert card["config"]["search"]["trials"] == 3
    assert card["config"]["search"]["settings"] == settings
    assert {**card["config"], "search": None} == {**alone.card.config, "search": None}
    assert [line["looks"] for line in read_ledger_lines(records_dir() / VALIDATION_LEDGER)[0]] == [1, 1, 1, 2, 3]
    assert not read_ledger(), "no test part was scored"


def test_an_interrupted_search_goes_on(tmp_path, monkeypatch):
    toy_task(tmp_path)
    whole = train("whole", overrides=SEARCH)
    taken, real = [], finetune_training.training_step

    def step(*given):
        taken.append(1)
        if len(taken) == 8:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(finetune_training, "training_step", step)
    with pytest.raises(KeyboardInterrupt):
        train("again", overrides=SEARCH)
    notes = []
    again = train("again", overrides=SEARCH, log=notes.append)
    assert "an interrupted search of these settings and images goes on" in notes
    assert len(taken) == 8 + 4
    assert again.card.sha256 == whole.card.sha256
    assert not list((cache_dir() / "trainings").iterdir())


def test_the_command_prints_trials_and_the_chosen_settings(tmp_path):
    toy_task(tmp_path)
    words = ["train", "--encoder", START, "--task", "sick", "--name", "best", "--no-near", "--device", "cpu"]
    done = CliRunner().invoke(app, [*words, "--search", "lr", "--trials", "3", *THREE])
    assert done.exit_code == 0, done.output
    assert "best: best of 3 by validation, trial " in done.stdout
    assert "80 images and 5 validations in all" in done.stdout
    assert "rung 2 of 2 (1 trial), trial " in done.stderr
