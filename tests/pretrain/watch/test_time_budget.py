"""The watchdog's share of a run's time: probes are postponed by the clock only where nothing acts on them."""

import pytest

from encoders.runtime.metrics_log import read_metrics
from pretrain.loop.setup import build_setup
from pretrain.watch import watchdog
from pretrain.watch.time_budget import TimeBudget
from pretrain.watch.watchdog import Watchdog, count_probe_images
from tests.pretrain.runs import MOCO, recipe, run, store


class Clock:
    """Seconds that only the test advances."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def images(tmp_path):
    return store(tmp_path)


def test_work_fits_while_all_of_it_with_what_is_reserved_stays_within_its_share():
    clock = Clock()
    budget = TimeBudget(0.1, clock)
    assert budget.fits(), "nothing is known of its cost yet"
    with budget.spend():
        clock.now += 2
    clock.now += 37.9  # 39.9 in all
    assert not budget.fits()
    clock.now += 0.2
    assert budget.fits()
    assert not budget.fits(reserved=1)
    clock.now += 20
    assert budget.fits(reserved=1)
    assert budget.used_share() == pytest.approx(2 / 60.1)
    assert TimeBudget(1.0, clock).fits(reserved=100)


def probed_steps(images, monkeypatch, *settings, steps=400, look_s=3.0, step_s=1.0):
    """The steps that the watchdog measures in a run of `steps` steps, and the share of the time that it took, on a clock of its own."""
    clock = Clock()
    monkeypatch.setattr(watchdog, "TimeBudget", lambda share: TimeBudget(share, clock))
    setup = build_setup(recipe(images, MOCO, f"steps={steps}", "watch.every=10", "watch.images=16", *settings), "cpu")
    setup.batches.close()
    dog, seen = Watchdog(setup, [], {}, print), []

    def measure(method, progress):
        clock.now += look_s
        return {"watch/std": 1.0}

    dog.probe.measure = measure
    dog.measure(0)
    for step in range(1, steps + 1):
        clock.now += step_s
        if dog.is_due(step):
            seen.append(step)
            dog.measure(step)
    return seen, dog.budget.used_share()


def test_probes_are_postponed_until_they_fit_and_the_last_one_never(images, monkeypatch):
    steps, share = probed_steps(images, monkeypatch, "watch.max_share=0.02", steps=700)
    assert share <= 0.02
    assert 700 in steps
    assert 3 <= len(steps) <= 4, "14 s are allowed, 3 of them for the first and 3 for the last"
    steps, share = probed_steps(images, monkeypatch, "watch.max_share=0.02", steps=40)
    assert steps == [40]


@pytest.mark.parametrize("acting", [["watch.policy=stop"], ["watch.policy=rollback"]])
def test_probes_that_decide_the_run_keep_their_steps_whatever_the_clock_says(acting, images, monkeypatch):
    for look_s in (0.0, 50.0):
        steps, _ = probed_steps(images, monkeypatch, "watch.max_share=0.02", *acting, steps=100, look_s=look_s)
        assert steps == list(range(5, 101, 5)), "about twenty, as `watch.every` says of short runs"


def test_a_run_of_few_steps_probes_fewer_images_unless_something_acts_on_them(images):
    def count(*settings):
        setup = build_setup(recipe(images, MOCO, *settings), "cpu")
        setup.batches.close()
        return count_probe_images(setup)

    assert count("watch.max_share=0.02") == watchdog.FEWEST_PROBE_IMAGES
    assert count("watch.max_share=0.02", "steps=400") == int(0.02 * 3 * 2 * 16 * 400 / watchdog.SHORT_RUN_PROBES)
    assert count("watch.max_share=0.02", "steps=100000") == 256
    assert count("watch.max_share=0.02", "watch.policy=stop") == count() == 256


def test_a_short_run_has_the_first_and_the_last_probe(images):
    where = run(images, MOCO, "short", "watch.max_share=0.0001")
    assert "watch/rank" in where.read()["untrained"]
    assert [line["step"] for line in read_metrics(where.path) if "watch/rank" in line] == [9]


def test_probes_that_act_and_take_long_are_reported(images, monkeypatch, capsys):
    run(images, MOCO, "acting", "watch.max_share=0.0001", "watch.policy=stop")
    assert "as watch.policy or watch.stop_at_best acts on them" in capsys.readouterr().err
    run(images, MOCO, "warning", "watch.max_share=0.0001")
    assert "acts on them" not in capsys.readouterr().err
