"""Rollback: a diverging run returns to its last good checkpoint with a lower learning rate; limited, recorded, and reproducible."""

import math

import pytest
import torch

from encoders.runtime import checkpoint, optim
from encoders.runtime.metrics_log import read_metrics
from pretrain.loop import train
from pretrain.methods.simclr import SimCLR
from pretrain.recipe import config
from pretrain.run import lifecycle as runs
from pretrain.run import rundir
from pretrain.watch.watchdog import Watchdog
from tests.pretrain.run.test_resume import equal_runs, last
from tests.pretrain.runs import recipe, store

WORDS = ["cxr_simclr_tiny", "arch=test_resnet", "method.hidden=32", "method.dim=16", "steps=16", "epochs=null", "warmup_steps=2",
         "log_every=1", "save_every=2", "batch=8", "size=32", "threads=1", "max_skipped=2", "precision=fp32", "watch.images=0"]  # fmt: skip


@pytest.fixture
def images(tmp_path):
    return store(tmp_path, n=24)


@pytest.fixture
def unstable(monkeypatch):
    """The loss of steps 9 and later is NaN until the learning rate is at most a fourth of the recipe's."""
    now = {}
    real_lr, real = train.set_lr, SimCLR.forward

    def set_lr(optimizer, step, steps, warmup, cfg, scale):
        now.update(step=step, scale=scale)
        return real_lr(optimizer, step, steps, warmup, cfg, scale)

    def forward(self, views, masks, progress, patient_ids=None):
        out = real(self, views, masks, progress)
        return out | {"loss": out["loss"] * (float("nan") if now["step"] >= 9 and now["scale"] > 0.25 else 1.0)}

    monkeypatch.setattr(train, "set_lr", set_lr)
    monkeypatch.setattr(SimCLR, "forward", forward)


def start(images, name, *more):
    where = rundir.run_dir_for(name)
    return runs.start_run(recipe(images, WORDS, *more), where, "cpu"), where


def test_a_run_rolls_back_twice_and_then_finishes(images, unstable, capsys):
    code, where = start(images, "unstable")
    assert code == 0
    rollbacks = where.read()["rollbacks"]
    assert [(r["at_step"], r["to_step"], r["lr_factor"]) for r in rollbacks] == [(10, 6, 0.5), (10, 6, 0.25)]  # older than three probes
    assert "was NaN or inf for 2 consecutive steps" in rollbacks[0]["why"]
    assert "rolled back to step 6, learning rate x 0.25" in capsys.readouterr().err
    assert last(where)["rollbacks"] == rollbacks
    assert all(torch.isfinite(v).all() for v in last(where)["method"].values())
    lines = read_metrics(where.path)
    assert [line["step"] for line in lines] == list(range(1, 17))  # no line of an abandoned step is left
    peak = optim.peak_lr(config.read_recipe(where.config).optim, 8)
    assert lines[5]["lr"] > 0.25 * peak > lines[6]["lr"]


@pytest.mark.parametrize(("precision", "steps"), [("fp32", 1), ("fp16", 6)])
def test_rejected_steps_leave_no_trace_in_the_step_after_them(images, monkeypatch, precision, steps):
    """The first step after a rollback is accepted, also in half precision, whose scaler skips steps of its own at first."""
    real, bad = SimCLR.forward, []

    def forward(self, views, masks, progress, patient_ids=None):
        out = real(self, views, masks, progress)
        if progress >= 9 / 16 and len(bad) < steps and self.training:
            bad.append(progress)
            out = out | {"loss": out["loss"] * float("nan")}
        return out

    monkeypatch.setattr(SimCLR, "forward", forward)
    code, where = start(images, "once", f"max_skipped={steps}", f"precision={precision}", "arch=test_resnet", "size=16")
    assert code == 0
    (rollback,) = where.read()["rollbacks"]
    assert rollback["at_step"] == 8 + steps
    lines = read_metrics(where.path)
    assert [line["step"] for line in lines] == list(range(1, 17))
    assert all(math.isfinite(line["loss"]) for line in lines)
    if precision == "fp32":
        assert lines[-1]["skipped"] == 0


def test_a_run_killed_during_a_rollback_ends_as_if_it_had_not_been_killed(images, unstable, monkeypatch):
    _, whole = start(images, "whole")
    left, written = [True], checkpoint.save_checkpoint

    def save(path, state):  # the rewritten checkpoint is saved, later ones are not deleted yet
        written(path, state)
        if state["rollbacks"] and left and left.pop():
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_checkpoint", save)
    with pytest.raises(KeyboardInterrupt):
        start(images, "killed")
    where = rundir.run_dir_for("killed")
    assert checkpoint.list_steps(where.checkpoints)[-1] > 6  # later checkpoints still exist
    assert runs.resume_run(where, "cpu") == 0
    assert equal_runs(whole, where)
    assert where.read()["rollbacks"] == whole.read()["rollbacks"]


def test_a_run_fails_after_max_rollbacks(images, unstable):
    with pytest.raises(train.Diverged, match=r"rolled back 1 times; watch\.max_rollbacks=1"):
        start(images, "hopeless", "watch.max_rollbacks=1")
    where = rundir.run_dir_for("hopeless")
    assert where.read()["status"] == "diverged"
    assert len(where.read()["rollbacks"]) == 1


def test_without_a_good_checkpoint_a_run_restarts_at_step_0(images, unstable):
    code, where = start(images, "early", "save_every=100")
    assert code == 0
    assert [r["to_step"] for r in where.read()["rollbacks"]] == [0, 0]
    assert read_metrics(where.path)[0]["step"] == 1


def test_an_alarm_rolls_back_to_a_checkpoint_from_before_it_if_the_policy_says_so(images, monkeypatch):
    real = Watchdog.check
    seen = []
    monkeypatch.setattr(Watchdog, "check", lambda self, step, numbers: (real(self, step, numbers), alarm(step))[1])

    def alarm(step):
        if step == 10 and not seen:
            seen.append(step)
            return "collapse: raised by the test"
        return None

    code, where = start(images, "ailing", "watch.policy=rollback")
    assert code == 0
    (rollback,) = where.read()["rollbacks"]
    assert (rollback["at_step"], rollback["to_step"]) == (10, 6)  # three probes, one per step, before the alarm
    assert rollback["why"] == "collapse: raised by the test"
