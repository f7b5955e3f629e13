"""A run that diverges goes back to its last good checkpoint with a lower learning rate; that is bounded, written down, and exact."""

import math

import pytest
import torch

from encoders.runtime import checkpoint, optim
from pretrain.loop import train
from pretrain.methods.simclr import SimCLR
from pretrain.run import lifecycle as runs
from pretrain.run import rundir
from tests.pretrain.run.test_resume import equal_runs, last
from tests.pretrain.runs import recipe, store

WORDS = ["cxr_simclr_tiny", "arch=resnet10t", "method.hidden=32", "method.dim=16", "steps=16", "epochs=null", "warmup_steps=2",
         "log_every=1", "save_every=2", "batch=8", "size=32", "threads=1", "max_skipped=2", "precision=fp32", "watch.images=0"]  # fmt: skip


@pytest.fixture
def images(tmp_path):
    return store(tmp_path, n=24)


@pytest.fixture
def touchy(monkeypatch):
    """No number comes out of steps 9 and later while the schedule's learning rate is not at most a fourth of what the recipe says."""
    now = {}
    real_lr, real = train.set_lr, SimCLR.forward

    def set_lr(optimizer, step, steps, warmup, cfg, scale):
        now.update(step=step, scale=scale)
        return real_lr(optimizer, step, steps, warmup, cfg, scale)

    def forward(self, views, masks, progress):
        out = real(self, views, masks, progress)
        return out | {"loss": out["loss"] * (float("nan") if now["step"] >= 9 and now["scale"] > 0.25 else 1.0)}

    monkeypatch.setattr(train, "set_lr", set_lr)
    monkeypatch.setattr(SimCLR, "forward", forward)


def begun(images, name, *more):
    where = rundir.run_dir_for(name)
    return runs.start_run(recipe(images, WORDS, *more), where, "cpu"), where


def test_it_goes_back_twice_and_then_comes_to_its_end(images, touchy, capsys):
    code, where = begun(images, "touchy")
    assert code == 0
    told = where.read()["rollbacks"]
    assert [(r["at_step"], r["to_step"], r["lr_factor"]) for r in told] == [(10, 6, 0.5), (10, 6, 0.25)]  # older than three looks
    assert "was no number for 2 steps in a row" in told[0]["why"]
    assert "back to step 6, learning rate x 0.25" in capsys.readouterr().err
    assert last(where)["rollbacks"] == told
    assert all(torch.isfinite(v).all() for v in last(where)["method"].values())
    lines = runs.read_metrics(where.path)
    assert [line["step"] for line in lines] == list(range(1, 17))  # what was gone back behind is not in the record
    peak = optim.peak_lr(runs.config.read(where.config).optim, 8)
    assert lines[5]["lr"] > 0.25 * peak > lines[6]["lr"]


@pytest.mark.parametrize(("precision", "steps"), [("fp32", 1), ("fp16", 6)])
def test_nothing_of_the_bad_steps_reaches_the_step_after_them(images, monkeypatch, precision, steps):
    """The first step after going back is a good one, in half precision with its scaler too (which skips steps of its own at first)."""
    real, bad = SimCLR.forward, []

    def forward(self, views, masks, progress):
        out = real(self, views, masks, progress)
        if progress >= 9 / 16 and len(bad) < steps and self.training:
            bad.append(progress)
            out = out | {"loss": out["loss"] * float("nan")}
        return out

    monkeypatch.setattr(SimCLR, "forward", forward)
    code, where = begun(images, "once", f"max_skipped={steps}", f"precision={precision}")
    assert code == 0
    (told,) = where.read()["rollbacks"]
    assert told["at_step"] == 8 + steps
    lines = runs.read_metrics(where.path)
    assert [line["step"] for line in lines] == list(range(1, 17))
    assert all(math.isfinite(line["loss"]) for line in lines)
    if precision == "fp32":
        assert lines[-1]["skipped"] == 0


def test_killed_while_rolling_back_it_ends_as_if_never_killed(images, touchy, monkeypatch):
    _, whole = begun(images, "whole")
    left, written = [True], checkpoint.save_checkpoint

    def save(path, state):  # the changed checkpoint is written, what comes after it is not
        written(path, state)
        if state["rollbacks"] and left and left.pop():
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_checkpoint", save)
    with pytest.raises(KeyboardInterrupt):
        begun(images, "killed")
    where = rundir.run_dir_for("killed")
    assert checkpoint.list_steps(where.checkpoints)[-1] > 6  # those of the abandoned future are still there
    assert runs.resume_run(where, "cpu") == 0
    assert equal_runs(whole, where)
    assert where.read()["rollbacks"] == whole.read()["rollbacks"]


def test_it_gives_up_after_so_many_rollbacks_and_says_so(images, touchy):
    with pytest.raises(train.Diverged, match=r"rolled back 1 times; watch\.max_rollbacks=1"):
        begun(images, "hopeless", "watch.max_rollbacks=1")
    where = rundir.run_dir_for("hopeless")
    assert where.read()["status"] == "diverged"
    assert len(where.read()["rollbacks"]) == 1


def test_without_a_good_checkpoint_it_begins_anew(images, touchy):
    code, where = begun(images, "early", "save_every=100")
    assert code == 0
    assert [r["to_step"] for r in where.read()["rollbacks"]] == [0, 0]
    assert runs.read_metrics(where.path)[0]["step"] == 1


def test_an_alarm_rolls_back_to_before_it_when_the_policy_says_so(images, monkeypatch):
    real = runs.Watchdog.heed
    seen = []
    monkeypatch.setattr(runs.Watchdog, "heed", lambda self, step, numbers: (real(self, step, numbers), alarm(step))[1])

    def alarm(step):
        if step == 10 and not seen:
            seen.append(step)
            return "collapse: said by the test"
        return None

    code, where = begun(images, "ailing", "watch.policy=rollback")
    assert code == 0
    (told,) = where.read()["rollbacks"]
    assert (told["at_step"], told["to_step"]) == (10, 6)  # three looks, one a step, before the alarm
    assert told["why"] == "collapse: said by the test"
