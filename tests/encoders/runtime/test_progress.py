"""Estimates of the time left, on a simulated clock: none without evidence, and then within a factor of two of what it really takes."""

import numpy as np
import pytest

from encoders.runtime.progress import Progress, describe_seconds, skip_items


class Clock:
    """Seconds that pass only when a job takes them."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def simulate(events, total=0, work=None, skipped=0):
    """(share of the time that has passed, estimate / true time left) after every event.

    events: (seconds, kind or None, units); seconds None: done already."""
    clock = Clock()
    progress = Progress(total, work, clock=clock)
    duration = sum(seconds or 0.0 for seconds, _, _ in events)
    points = []
    for seconds, kind, units in events:
        clock.now += seconds or 0.0
        if seconds is None:
            progress.skip(0, {kind: units}) if kind else progress.skip(units)
        elif kind:
            progress.spend(kind, units)
        else:
            progress(units)
        left = progress.seconds_left()
        if clock.now < 0.98 * duration:
            points.append((clock.now / duration, None if left is None else left / (duration - clock.now)))
    return points


def ratios(points, after=0.1):
    return [ratio for share, ratio in points if share >= after]


@pytest.mark.parametrize("sigma", [0.0, 0.5, 1.0])
def test_items_of_different_sizes_after_a_slow_start(sigma):
    seconds = np.random.default_rng(0).lognormal(0, sigma, 1000)
    found = ratios(simulate([(30.0 + seconds[0], None, 1), *((s, None, 1) for s in seconds[1:])], 1000))
    assert None not in found
    assert 0.5 < min(found) <= max(found) < 2


def test_a_change_of_speed_is_followed():
    """The other half of the cores is taken away after a third: the mean over everything would be wrong for long."""
    points = simulate([(1.0 if i < 300 else 1.8, None, 1) for i in range(1000)], 1000)
    assert all(0.5 < ratio < 2 for ratio in ratios(points))
    assert all(0.9 < ratio < 1.1 for ratio in ratios(points, after=0.5))


def test_a_resumed_ingest_does_not_take_what_was_done_for_speed():
    events = [(None, None, 600), *((1.0, None, 1) for _ in range(400))]
    found = ratios(simulate(events, 1000))
    assert 0.9 < min(found) <= max(found) < 1.1


@pytest.mark.parametrize("reused", [0, 3])
def test_embedding_and_probes_are_estimated_apart(reused):
    """Six encoders: images are embedded in batches of 64, then eight probes of one kind and two of a slow one are trained."""
    one = [*((0.5, "embed", 64) for _ in range(20)), *((2.0, "linear", 1) for _ in range(8)), *((30.0, "finetune", 1) for _ in range(2))]
    done = [*[(None, "embed", 1280)], *((None, "linear", 1) for _ in range(8)), *((None, "finetune", 1) for _ in range(2))]
    work = {"embed": 6 * 1280.0, "linear": 48.0, "finetune": 12.0}
    points = simulate([*done * reused, *one * (6 - reused)], 60, work)
    first = next(share for share, ratio in points if ratio is not None)
    assert all(ratio is None for share, ratio in points if share < first)
    assert first <= 1 / (6 - reused)  # once the first encoder has shown all kinds
    assert all(0.5 < ratio < 2 for share, ratio in points if share > first)


def test_nothing_is_said_about_a_kind_that_was_not_seen():
    points = simulate([(0.1, "embed", 1) for _ in range(1000)] + [(3600.0, "finetune", 1)], 1, {"embed": 1000.0, "finetune": 1.0})
    assert [ratio for _, ratio in points] == [None] * 1000


def test_nothing_is_said_after_the_first_of_many_items():
    clock = Clock()
    progress = Progress(1000, clock=clock)
    for seconds in (60.0, 0.1):
        clock.now += seconds
        progress(1)
        assert progress.seconds_left() is None
    for _ in range(10):
        clock.now += 0.1
        progress(1)
    assert progress.seconds_left() == pytest.approx(98.8)


def test_all_done_is_nothing_left_and_the_rate_is_of_work_alone():
    clock, shown = Clock(), []
    progress = Progress(10, show=lambda state: shown.append((state.done, state.seconds_left(), state.describe_rate())), clock=clock)
    skip_items(progress, 6)
    for n in (2, 2):
        clock.now += 1.0
        progress(n)
    assert shown == [(6, None, ""), (8, 1.0, "2.0/s"), (10, 0.0, "2.0/s")]
    plain = []
    skip_items(plain.append, 6)
    skip_items(plain.append, 0)
    assert plain == [6]


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (99, "99 s"), (101, "2 min"), (5999, "100 min"), (35610, "9.9 h")])
def test_estimates_are_written_as_exactly_as_they_are(seconds, text):
    assert describe_seconds(seconds) == text
