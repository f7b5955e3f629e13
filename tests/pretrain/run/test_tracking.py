"""A pretraining run as trackers see it: axes, sections, effective settings, the selection curve, alerts, and how it ended."""

import json
import os
import signal

import pytest

from encoders.runtime import metrics_log
from encoders.runtime.metrics_log import read_metrics
from encoders.runtime.slurm_jobs import JobState
from encoders.runtime.tracker import OUTCOME_EXIT_STATUS
from encoders.zoo.card import Card
from pretrain.loop import train
from pretrain.recipe import config
from pretrain.run import lifecycle, rundir, tracking
from pretrain.run.tracking import decide_outcome, name_in_section
from pretrain.watch import watchdog
from pretrain.watch.diagnose import Finding
from tests.pretrain import runs
from tests.pretrain.runs import MOCO, recipe, store

QUICK = ["steps=4", "warmup_steps=1", "watch.every=1", "watch.images=8"]


class Recorder:
    """A tracker that keeps what it gets."""

    def __init__(self, described):
        self.described, self.events, self.rows, self.outcome = described, [], {}, None

    def log(self, step, values):
        self.rows.setdefault(step, {}).update(values)

    def alert(self, *given):
        self.events.append(given)

    def summary(self, values):
        pass

    def close(self, outcome):
        self.outcome = outcome


@pytest.fixture
def opened(monkeypatch):
    """The trackers that runs of this test open, in order, with the names that were asked for."""
    opened = []

    def open_recorder(names, run_dir, described, mode=None, step=None):
        opened.append(Recorder(described))
        opened[-1].names = list(names)
        return [opened[-1]]

    monkeypatch.setattr(metrics_log, "open_trackers", open_recorder)
    return opened


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return store(tmp_path_factory.mktemp("images"), n=64)


def test_trackers_get_axes_sections_settings_and_the_selection_curve(images, opened):
    labeled = [f"watch.labeled={images}", "watch.label=finding", "watch.k=3"]
    run = runs.run(images, MOCO, "mine", *QUICK, *labeled, "track=[tensorboard]")
    (tracker,) = opened
    assert tracker.names == ["jsonl", "tensorboard"]
    assert tracker.described.axes == ("images_seen", "epoch")
    assert sorted(tracker.rows) == [0, 1, 2, 3, 4]
    assert [tracker.rows[step]["images_seen"] for step in range(5)] == [0, 16, 32, 48, 64]
    assert [tracker.rows[step]["epoch"] for step in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    for line in read_metrics(run.path):
        row = tracker.rows[line["step"]]
        assert (row["train/loss"], row["optim/lr"], row["optim/grad_norm"]) == (line["loss"], line["lr"], line["grad_norm"])
        assert row["time/images_per_s"] == line["time/images_per_s"]
        assert row["selection/knn"] == line["watch/knn"]
        assert not [name for name in row if "/" not in name and name not in ("images_seen", "epoch")]
    knn = [tracker.rows[step]["selection/knn"] for step in range(5)]
    best = [tracker.rows[step]["selection/best_knn"] for step in range(5)]
    assert best == [max(knn[: i + 1]) for i in range(5)]
    assert [tracker.rows[step]["selection/best_step"] for step in range(5)] == [knn.index(b) for b in best]
    told = tracker.described.config
    assert told["effective"]["lr"] == pytest.approx(told["optim"]["lr"] * 16 / 256)
    assert (told["effective"]["queue"], told["method"]["queue"] > 32) == (32, True)  # half of 64 images, in whole batches
    assert (told["effective"]["steps"], told["effective"]["warmup_steps"]) == (4, 1)
    assert told["encoder"]["pretraining_images"] == 64
    assert (told["encoder"]["method"], told["encoder"]["images_seen"], told["encoder"]["epochs"]) == ("moco", 64, 1.0)
    assert {"pretrain", "moco", "test_resnet"} <= set(tracker.described.tags)
    assert tracker.outcome == "finished"
    assert tracker.described.id == run.read()["id"] == run.read()["wandb"]
    card = Card.read(rundir.paths.zoo_dir() / "mine" / "card.yaml")
    assert "track" not in card.config  # nor does the record of a benchmark depend on it


def test_a_diagnosis_is_an_alert_when_it_begins(images, opened, monkeypatch):
    found = [Finding("collapse", True, 2, "features are alike"), Finding("loader-bound", False, 2, "waits")]
    monkeypatch.setattr(watchdog, "diagnose", lambda lines, *rest: found if len(lines) in (2, 3) else [])
    runs.run(images, MOCO, "mine", *QUICK)
    assert opened[0].events == [(2, "collapse", "features are alike", "warning"), (2, "loader-bound", "waits", "info")]


def stop_at(monkeypatch, step, number):
    """Sends a signal to this process in the middle of a step."""
    real, count = train.clip_gradients, iter(range(1, 1000))

    def clip(*given):
        if next(count) == step:
            os.kill(os.getpid(), number)
        return real(*given)

    monkeypatch.setattr(train, "clip_gradients", clip)


@pytest.mark.parametrize(
    ("number", "job", "outcome"),
    [
        (signal.SIGINT, None, "cancelled"),
        (signal.SIGTERM, None, "cancelled"),
        (signal.SIGUSR1, None, "preempted"),
        (signal.SIGTERM, JobState("7", "COMPLETING"), "cancelled"),
        (signal.SIGTERM, JobState("7", "CANCELLED"), "cancelled"),
        (signal.SIGTERM, JobState("7", "COMPLETING", preempted=True), "preempted"),
        (signal.SIGTERM, JobState("7", "RUNNING"), "preempted"),
        (signal.SIGTERM, JobState("7"), "preempted"),
    ],
)
def test_the_outcome_tells_preemption_from_cancellation(monkeypatch, number, job, outcome):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if job:
        monkeypatch.setenv("SLURM_JOB_ID", "7")
        monkeypatch.setattr(tracking.slurm_jobs, "job_state", lambda name: job)
    assert decide_outcome(signal.Signals(number).name) == outcome


def test_a_stopped_run_is_not_called_finished_and_a_resumed_one_goes_on(images, opened, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    where = rundir.run_dir_for("mine")
    stop_at(monkeypatch, 2, signal.SIGUSR1)
    assert lifecycle.start_run(recipe(images, MOCO, *QUICK), where, "cpu") != 0
    assert opened[0].outcome == "preempted"
    assert lifecycle.resume_run(where, "cpu") == 0
    assert [tracker.outcome for tracker in opened] == ["preempted", "finished"]
    assert len({tracker.described.id for tracker in opened}) == 1
    assert [opened[1].rows[step]["images_seen"] for step in (3, 4)] == [48, 64]


def test_a_diverged_run_is_called_so(images, opened):
    with pytest.raises(train.Diverged):
        runs.run(images, MOCO, "mine", *QUICK, "optim.lr=1e30", "max_skipped=1", "watch.max_rollbacks=0", "optim.kind=sgd")
    assert opened[-1].outcome == "diverged"


def test_a_run_that_the_watchdog_stops_is_called_so():
    assert decide_outcome("watchdog") == "stopped"
    assert all(status for outcome, status in OUTCOME_EXIT_STATUS.items() if outcome != "finished")


@pytest.mark.parametrize(
    ("name", "shown"),
    [("loss", "train/loss"), ("top1", "train/top1"), ("lr", "optim/lr"), ("grad_norm", "optim/grad_norm"), ("skipped", "optim/skipped"),
     ("watch/knn_gain", "selection/knn_gain"), ("watch/std", "watch/std"), ("time/wait", "time/wait")],
)  # fmt: skip
def test_every_number_is_in_a_section(name, shown):
    assert name_in_section(name) == shown


def test_where_a_run_is_shown_does_not_enter_its_identity(images):
    plain = recipe(images, MOCO)
    assert plain.track == ["jsonl", "wandb"]
    assert plain.system_metrics is False
    for more in (["track=[jsonl]"], ["track=[wandb,mlflow]"], ["system_metrics=true"]):
        assert config.recipe_identity(recipe(images, MOCO, *more)) == config.recipe_identity(plain)
    assert recipe(images, MOCO, "track=[]").track == ["jsonl"]
    digest = config.recipe_identity(config.load_recipe("cxr_moco_tiny", ["data.store=x.h5"]))
    assert digest == "f1399523de6f151c"  # that of the version before these settings


def test_an_unknown_tracker_is_refused(images):
    with pytest.raises(Exception, match="track"):
        recipe(images, MOCO, "track=[neptune]")


def test_no_setting_that_is_sent_holds_a_path(images, opened):
    runs.run(images, MOCO, "mine", *QUICK, "watch.images=0")
    from encoders.runtime.redact import redact_private

    sent = json.dumps(redact_private(opened[0].described.config))
    assert str(images.parent) not in sent
    assert "encoder" in sent
