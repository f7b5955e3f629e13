"""The comparison of an encoder with its start: measures against loops, the diagnosis, and the step that `watch.stop_at_best` exports."""

import numpy as np
import pytest
import torch

from encoders.runtime import checkpoint
from encoders.runtime.errors import InputError
from encoders.runtime.metrics_log import read_metrics
from encoders.store.write import save_store
from encoders.zoo import zoo
from pretrain.loop import train
from pretrain.recipe import config
from pretrain.run import lifecycle as runs
from pretrain.run import rundir
from pretrain.run.interpolate import export_interpolated
from pretrain.watch import knn
from pretrain.watch.best import count_probes_since_best, find_best
from pretrain.watch.diagnose import diagnose
from pretrain.watch.start import feature_drift, nearest_others, neighbour_overlap, paired_gain
from pretrain.watch.watchdog import Watchdog
from tests.pretrain.run.test_resume import equal_runs, last
from tests.pretrain.runs import recipe, run, store
from tests.pretrain.starts import SIMCLR, publish


@pytest.fixture
def images(tmp_path):
    return store(tmp_path)


@pytest.fixture
def labeled(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 40, 1)).astype(np.uint8)
    path = save_store(tmp_path / "l.h5", pixels, patient=[i // 2 for i in range(40)], labels={"ill": [0, 0, 1, 1] * 10})
    return [f"watch.labeled={path}", "watch.label=ill"]


def cosine(a, b):
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def test_drift_and_overlap_equal_their_definitions():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(30, 6)).astype(np.float32)
    now = start + 0.5 * rng.normal(size=(30, 6)).astype(np.float32)
    assert feature_drift(now, start) == pytest.approx(np.mean([1 - cosine(a, b) for a, b in zip(now, start, strict=True)]), abs=1e-6)

    def neighbours(x, i):
        return set(sorted((j for j in range(len(x)) if j != i), key=lambda j: -cosine(x[i], x[j]))[:4])

    want = np.mean([len(neighbours(now, i) & neighbours(start, i)) / 4 for i in range(30)])
    assert neighbour_overlap(now, start, 4) == pytest.approx(want)
    assert 0.2 < want < 0.9
    assert neighbour_overlap(start, 3 * start) == 1
    assert feature_drift(3 * start, start) == pytest.approx(0, abs=1e-6)


def test_a_row_is_not_its_own_neighbour_even_if_it_has_copies():
    x = np.ones((14, 3), np.float32)
    index = nearest_others(x, 10)
    assert index.shape == (14, 10)
    assert not (index == np.arange(14)[:, None]).any()
    assert all(len(set(row)) == 10 for row in index)


def test_the_gain_and_its_error_over_patients_equal_loops_and_a_bootstrap():
    rng = np.random.default_rng(0)
    y, patients = np.repeat([0, 1, 1], 60), np.repeat(np.arange(60), 3)
    noise = rng.random(60)[patients] < 0.3  # patients whose images change together
    start = (rng.random(60) < 0.7)[patients]
    now = np.where(noise, ~start, start)
    gain, error = paired_gain(now, start, y, patients)
    assert gain == pytest.approx(np.mean([now[y == c].mean() - start[y == c].mean() for c in (0, 1)]))
    draws = []
    for _ in range(4000):
        rows = np.concatenate([3 * p + np.arange(3) for p in rng.integers(0, 60, 60)])
        draws.append(np.mean([now[rows][y[rows] == c].mean() - start[rows][y[rows] == c].mean() for c in (0, 1)]))
    assert error == pytest.approx(np.std(draws), rel=0.1)
    alone = paired_gain(now, start, y, np.arange(180))[1]
    assert alone < 0.8 * error, "images of a patient are not independent"


# Diagnosis


def lines(gains, errors=0.01):
    return [
        {"step": 10 * i, "loss": 1.0, "watch/knn": 0.8 + g, "watch/knn_gain": g, "watch/knn_gain_se": errors} for i, g in enumerate(gains)
    ]


@pytest.mark.parametrize(
    ("gains", "errors", "below"),
    [
        ([0.0, -0.03, -0.03, -0.03], 0.01, True),
        ([-0.03, -0.03, -0.01], 0.01, False),  # the last one may be chance
        ([-0.03, -0.03], 0.01, False),  # too few
        ([-0.03, -0.03, -0.03], 0.02, False),
        ([0.03, 0.03, 0.03], 0.01, False),
        ([-0.03, -0.03, float("nan")], 0.01, False),
    ],
)
def test_below_its_start_needs_three_probes_beyond_their_errors(gains, errors, below):
    findings = {f.name: f for f in diagnose(lines(gains, errors), {}, 0.5)}
    assert ("below its start" in findings) == below
    if below:
        assert not findings["below its start"].alarm
        assert "is 0.770, and 0.800 at step 0 (difference -0.030" in findings["below its start"].text


def test_a_run_that_gets_worse_says_so(images, labeled, monkeypatch, capsys):
    publish()

    def worse(train_x, train_y, x, k):
        worse.calls += 1
        return np.zeros(len(x), int) if worse.calls > 1 else worse.y

    worse.calls = 0
    real = knn.OnlineKnn.measure

    def measure(self, method):
        worse.y = self.query_y
        return real(self, method)

    monkeypatch.setattr(knn, "knn_predictions", worse)
    monkeypatch.setattr(knn.OnlineKnn, "measure", measure)
    where = run(images, SIMCLR, "worse", *labeled)
    assert "below its start" in capsys.readouterr().err
    assert where.read()["untrained"]["watch/knn"] == 1.0


# Metrics of a run


def test_a_run_with_init_logs_drift_and_overlap_and_one_without_does_not(images, labeled):
    publish()
    rows = read_metrics(run(images, SIMCLR, "continued", *labeled).path)
    probed = [r for r in rows if "watch/rank" in r]
    assert probed
    assert all({"watch/drift", "watch/overlap", "watch/knn_gain", "watch/knn_gain_se"} <= set(r) for r in probed)
    assert 0 < probed[0]["watch/drift"] < probed[-1]["watch/drift"]
    assert probed[-1]["watch/overlap"] < 1
    fresh = [r for r in read_metrics(run(images, [*SIMCLR, "init=null", "arch=test_resnet"], "fresh", *labeled).path) if "watch/rank" in r]
    assert fresh
    assert not any("watch/drift" in r for r in fresh)


def test_probing_and_comparing_change_no_bit_of_a_run(images, labeled):
    publish()
    watched = run(images, SIMCLR, "watched", *labeled)
    unwatched = run(images, SIMCLR, "unwatched", "watch.images=0")
    assert equal_runs(watched, unwatched, but="watch/")


def test_a_probe_of_other_images_than_at_step_0_is_not_compared(images, labeled, monkeypatch, capsys):
    publish()
    where = stopped_at(3, images, [*SIMCLR, *labeled], "stopped", monkeypatch)
    assert runs.resume_run(where, "cpu", overrides=["watch.images=12"]) == 0
    assert "drift and overlap are not logged" in capsys.readouterr().err


def stopped_at(step, images, words, name, monkeypatch):
    """A run that is interrupted in the given step; its folder."""
    real, steps = train.clip_gradients, []

    def clip(*given):
        steps.append(1)
        if len(steps) == step:
            raise KeyboardInterrupt
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(train, "clip_gradients", clip)
        with pytest.raises(KeyboardInterrupt):
            runs.start_run(recipe(images, words), rundir.run_dir_for(name), "cpu")
    return rundir.run_dir_for(name)


# The best step


def test_the_best_probe_is_the_first_of_the_highest_ones():
    rows = [{"step": s, "watch/knn": v} for s, v in ((1, 0.5), (2, 0.8), (3, 0.8), (4, float("nan")), (5, 0.7))] + [{"step": 6}]
    assert find_best(rows)["step"] == 2
    assert count_probes_since_best(rows) == 3
    assert find_best(rows, [3, 5])["step"] == 3
    assert find_best([{"step": 6}]) is None
    assert count_probes_since_best([{"step": 6}]) == 0


SCORES = {0: 0.6, 1: 0.7, 2: 0.9, 3: 0.8, 4: 0.85, 5: 0.7, 6: 0.6, 7: 0.95, 8: 0.5}


@pytest.fixture
def scripted(monkeypatch):
    """k-NN scores that follow SCORES, whatever the encoder does."""
    real = Watchdog.measure
    monkeypatch.setattr(Watchdog, "measure", lambda self, step: real(self, step) | {"watch/knn": SCORES[step]})


BEST = ["watch.stop_at_best=3", "save_every=4", "steps=8"]


def test_the_run_ends_after_probes_without_a_better_one_and_exports_the_best(images, labeled, scripted, capsys):
    publish()
    where = run(images, SIMCLR, "early", *labeled, *BEST, "ema=0.9")
    assert where.read()["status"] == "finished"
    assert last(where)["step"] == 5
    card = zoo.find_encoder("early").card
    assert card.steps == 2
    assert card.lineage["selected"] == {
        "step": 2, "by": "online k-NN probe", "store": "l.h5", "label": "ill", "knn": 0.9, "knn_at_start": 0.6, "probes": 5
    }  # fmt: skip
    want = run(images, SIMCLR, "two", *labeled, "steps=8", "save_every=1", "keep_every=1", "watch.policy=warn")
    saved = checkpoint.load_checkpoint(checkpoint.checkpoint_path(want.checkpoints, 2))
    state = zoo.load_encoder("early").model.state_dict()
    assert all(torch.equal(state[key], saved["encoder"][key]) for key in state)
    assert zoo.find_encoder("early_ema").card.steps == 2
    export_interpolated(where, [1.0])  # the end of the line is the encoder of the run, not its last step
    assert zoo.find_encoder("early_alpha1").card.sha256 == card.sha256
    assert "best k-NN probe is that of step 2: 0.9 (0.6 at step 0)" in capsys.readouterr().err


@pytest.mark.parametrize("step", [2, 4, 5])
def test_a_resumed_run_ends_at_the_same_best_step(images, labeled, scripted, step, monkeypatch):
    publish()
    words = [*SIMCLR, *labeled, *BEST]
    uninterrupted = run(images, words, "uninterrupted")
    where = stopped_at(step, images, words, "stopped", monkeypatch)
    assert runs.resume_run(where, "cpu") == 0
    assert equal_runs(uninterrupted, where)
    assert zoo.find_encoder("stopped").card.steps == 2
    assert runs.resume_run(where, "cpu") == 0  # a finished run trains no further
    assert last(where)["step"] == 5


def test_a_run_whose_probe_keeps_rising_ends_at_its_last_step(images, labeled, monkeypatch):
    publish()
    real = Watchdog.measure
    monkeypatch.setattr(Watchdog, "measure", lambda self, step: real(self, step) | {"watch/knn": step / 10})
    where = run(images, SIMCLR, "rising", *labeled, "watch.stop_at_best=1")
    assert last(where)["step"] == 6
    assert zoo.find_encoder("rising").card.steps == 6


def test_stopping_at_the_best_needs_labels_and_makes_the_probe_part_of_the_identity():
    with pytest.raises(InputError, match=r"stop_at_best chooses a step by the online k-NN probe and needs watch\.labeled"):
        config.load_recipe("cxr_moco_tiny", ["watch.stop_at_best=2"])
    given = ["watch.labeled=x.h5", "watch.label=ill", "watch.stop_at_best=2"]

    def identity(*words):
        return config.recipe_identity(config.load_recipe("cxr_moco_tiny", words))

    assert identity(*given, "watch.every=7") != identity(*given) != identity(*given, "log_every=1")
    assert identity(*given[:2], "watch.every=7") == identity(*given[:2], "log_every=1") == identity()
