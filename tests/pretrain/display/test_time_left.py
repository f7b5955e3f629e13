"""The estimate of the time left of a run, on the lines that a simulated run would have written."""

import pytest

from pretrain.display.dashboard import describe_progress
from pretrain.display.time_left import estimate_seconds_left
from pretrain.run.monitor import _build_line_printer


def simulate(steps=5000, log_every=50, step_s=0.1, start_s=120.0, probe_every=500, probe_s=20.0, slower_from=None):
    """Lines of metrics.jsonl, and the seconds that were left at each."""
    lines, seconds = [], []
    for step in range(log_every, steps + 1, log_every):
        own = log_every * step_s * (2.0 if slower_from and step > slower_from else 1.0)
        own += start_s * (step == log_every) + probe_s * (step % probe_every == 0)
        lines.append({"step": step, "loss": 1.0, "lr": 0.1, "time/s_per_step": own / log_every})
        seconds.append(own)
    return lines, [sum(seconds[i + 1 :]) for i in range(len(seconds))]


@pytest.mark.parametrize(
    "run",
    [
        {},
        {"start_s": 3600.0},
        {"probe_s": 50.0},
        {"probe_every": 1000, "probe_s": 60.0},
        {"log_every": 10},
        {"steps": 400, "log_every": 20},
    ],
)
def test_the_estimate_is_within_a_factor_of_two_after_a_tenth(run):
    """Or within a tenth of the whole: near the end a single probe may be most of what is left."""
    lines, left = simulate(**run)
    steps = lines[-1]["step"]
    for n in range(len(lines) // 10 + 1, len(lines)):
        estimate = estimate_seconds_left(lines[:n], steps)
        assert 0.5 < estimate / left[n - 1] < 2 or abs(estimate - left[n - 1]) < 0.1 * left[0], n


def test_a_slower_machine_is_noticed():
    lines, left = simulate(slower_from=2500)
    assert estimate_seconds_left(lines[:80], 5000) == pytest.approx(left[79], rel=0.2)


def test_nothing_is_said_before_the_second_line(capsys):
    lines, _ = simulate()
    assert estimate_seconds_left([], 5000) is None
    assert estimate_seconds_left(lines[:1], 5000) is None
    assert "left" not in describe_progress(lines[:1], 5000)
    assert " left" in describe_progress(lines[:3], 5000)
    show = _build_line_printer("mine", 5000)
    show(**lines[0])
    assert "left" not in capsys.readouterr().err
