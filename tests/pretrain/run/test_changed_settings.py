"""Settings that change in the middle of a run: refused, or written down."""

import pytest
from typer.testing import CliRunner

from encoders.runtime import checkpoint
from encoders.runtime.errors import InputError
from encoders.zoo import zoo
from pretrain.cli.main import app
from pretrain.recipe import config
from pretrain.run import lifecycle as runs
from pretrain.run import rundir
from tests.pretrain.run.test_resume import last, same
from tests.pretrain.runs import METHODS, recipe, run, sigterm_at_step, store


@pytest.fixture
def where(tmp_path, monkeypatch):
    """A run that was stopped at step 4 of 6."""
    place = rundir.run_dir_for("mine")
    sigterm_at_step(monkeypatch, 4)
    assert runs.start_run(recipe(store(tmp_path), METHODS["mae"], "steps=6"), place, "cpu") == 75
    return place


def test_what_decides_the_weights_is_refused_until_it_is_allowed(where):
    before = where.config.read_text()
    with pytest.raises(
        InputError, match=r"optim\.lr from .* to 0\.5: run 'mine' would no longer be the run that was begun; add --allow-change"
    ):
        runs.resume_run(where, "cpu", overrides=["optim.lr=0.5"])
    assert where.config.read_text() == before
    assert CliRunner().invoke(app, ["resume", "mine", "optim.lr=0.5", "steps=7", "--device", "cpu", "--allow-change"]).exit_code == 0
    told = where.read()["changes"]
    assert [(c["step"], c["key"], c["to"]) for c in told] == [(4, "optim.lr", 0.5), (4, "steps", 7)]
    assert config.read_recipe(where.config).optim.lr == 0.5
    assert last(where)["step"] == 7
    assert all(group["peak"] == 0.5 * 16 / 256 for group in last(where)["optimizer"]["param_groups"])  # not that of the checkpoint
    card = zoo.load_encoder("mine").card
    assert card.lineage["changes"] == told
    assert card.config["optim"]["lr"] == 0.5


def test_what_only_decides_speed_or_record_may_change_and_the_weights_stay(where, tmp_path):
    whole = run(tmp_path / "images.h5", METHODS["mae"], "whole", "steps=6")
    assert runs.resume_run(where, "cpu", overrides=["log_every=2", "data.workers=1"]) == 0
    assert [c["key"] for c in where.read()["changes"]] == ["data.workers", "log_every"]
    assert same(last(whole)["method"], last(where)["method"])
    with pytest.raises(InputError, match="'mine' is finished and its encoder published; go on from that in another run, with init=mine"):
        runs.resume_run(where, "cpu", overrides=["optim.lr=0.5"], allow_change=True)


def test_what_a_checkpoint_is_made_of_cannot_change(where):
    with pytest.raises(InputError, match="a checkpoint of run 'mine' does not fit that; start another run"):
        runs.resume_run(where, "cpu", overrides=["model_args.depth=1"], allow_change=True)
    with pytest.raises(InputError, match="stands at step 4; with steps=3 there is nothing left to do"):
        runs.resume_run(where, "cpu", overrides=["steps=3"], allow_change=True)
    assert "changes" not in where.read()


def test_a_configuration_edited_by_hand_is_noticed(where):
    where.config.write_text(where.config.read_text().replace("seed: 0", "seed: 1"))
    with pytest.raises(InputError, match="config.yaml was edited: undo that"):
        runs.resume_run(where, "cpu")


def test_a_checkpoint_of_another_run_is_refused_with_its_reason_and_the_own_one_before_is_used(where, tmp_path, capsys):
    other = run(tmp_path / "images.h5", METHODS["mae"], "other", "steps=6", "seed=1")
    foreign = checkpoint.checkpoint_path(where.checkpoints, 6)
    foreign.write_bytes(checkpoint.checkpoint_path(other.checkpoints, 6).read_bytes())
    assert runs.resume_run(where, "cpu") == 0
    told = capsys.readouterr().err
    assert f"is of another run ({other.read()['id']}, this one is {where.read()['id']})" in told
    assert "of step 4" in told
    assert last(where)["run"] == where.read()["id"]
