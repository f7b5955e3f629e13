"""Settings that change when a run is resumed: refused, or recorded."""

import pytest
from typer.testing import CliRunner

from encoders.runtime import checkpoint
from encoders.runtime.errors import InputError
from encoders.zoo import zoo
from pretrain.cli.main import app
from pretrain.recipe import config
from pretrain.run import lifecycle as runs
from pretrain.run import rundir
from pretrain.run.changed_settings import is_fixed_setting
from tests.pretrain.run.test_resume import last, same
from tests.pretrain.runs import METHODS, recipe, run, sigterm_at_step, store


@pytest.fixture
def where(tmp_path, monkeypatch):
    """A run that was stopped at step 4 of 6."""
    place = rundir.run_dir_for("mine")
    sigterm_at_step(monkeypatch, 4)
    assert runs.start_run(recipe(store(tmp_path), METHODS["mae"], "steps=6"), place, "cpu") == 75
    return place


def test_a_setting_that_decides_the_weights_changes_only_if_allowed(where):
    before = where.config.read_text()
    with pytest.raises(
        InputError, match=r"optim\.lr from .* to 0\.5: this changes what decides the weights of run 'mine'; add --allow-change"
    ):
        runs.resume_run(where, "cpu", overrides=["optim.lr=0.5"])
    assert where.config.read_text() == before
    assert CliRunner().invoke(app, ["resume", "mine", "optim.lr=0.5", "steps=7", "--device", "cpu", "--allow-change"]).exit_code == 0
    changes = where.read()["changes"]
    assert [(c["step"], c["key"], c["to"]) for c in changes] == [(4, "optim.lr", 0.5), (4, "steps", 7)]
    assert config.read_recipe(where.config).optim.lr == 0.5
    assert last(where)["step"] == 7
    assert all(
        group["peak"] == 0.5 * 16 / 256 for group in last(where)["optimizer"]["param_groups"]
    )  # of the new settings, not of the checkpoint
    card = zoo.load_encoder("mine").card
    assert card.lineage["changes"] == changes
    assert card.config["optim"]["lr"] == 0.5


def test_settings_of_speed_and_logging_may_change_and_the_weights_stay(where, tmp_path):
    whole = run(tmp_path / "images.h5", METHODS["mae"], "whole", "steps=6")
    assert runs.resume_run(where, "cpu", overrides=["log_every=2", "data.workers=1"]) == 0
    assert [c["key"] for c in where.read()["changes"]] == ["data.workers", "log_every"]
    assert same(last(whole)["method"], last(where)["method"])
    with pytest.raises(
        InputError, match="'mine' is finished and its encoder published; to train it further, start another run with init=mine"
    ):
        runs.resume_run(where, "cpu", overrides=["optim.lr=0.5"], allow_change=True)


def test_settings_that_checkpoints_depend_on_cannot_change(where):
    with pytest.raises(InputError, match="cannot change: the checkpoints of run 'mine' depend on it; start another run"):
        runs.resume_run(where, "cpu", overrides=["model_args.depth=1"], allow_change=True)
    with pytest.raises(InputError, match="is at step 4; with steps=3 no step is left"):
        runs.resume_run(where, "cpu", overrides=["steps=3"], allow_change=True)
    assert "changes" not in where.read()


def test_a_fixed_setting_is_matched_by_its_whole_name():
    fixed = ["arch", "model_args", "model_args.depth", "channels", "channels_last", "method.name", "preprocess.resize"]
    assert all(map(is_fixed_setting, fixed))
    assert not any(map(is_fixed_setting, ["architecture", "seeds", "method.names", "method", "optim.lr", "size"]))


def test_a_config_edited_by_hand_is_an_error(where):
    where.config.write_text(where.config.read_text().replace("seed: 0", "seed: 1"))
    with pytest.raises(InputError, match="config.yaml was edited: undo the edit"):
        runs.resume_run(where, "cpu")


def test_a_checkpoint_of_another_run_is_skipped_with_a_warning_and_the_one_before_is_used(where, tmp_path, capsys):
    other = run(tmp_path / "images.h5", METHODS["mae"], "other", "steps=6", "seed=1")
    foreign = checkpoint.checkpoint_path(where.checkpoints, 6)
    foreign.write_bytes(checkpoint.checkpoint_path(other.checkpoints, 6).read_bytes())
    assert runs.resume_run(where, "cpu") == 0
    printed = capsys.readouterr().err
    assert f"is of another run ({other.read()['id']}, this one is {where.read()['id']})" in printed
    assert "of step 4" in printed
    assert last(where)["run"] == where.read()["id"]
