"""The command line's boundary: the user's mistakes are told alone with status 2, ours keep their traceback."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from encoders.runtime.cli import progress_counter, run_cli
from encoders.runtime.errors import InputError

COMMANDS = ["encoders", "pretrain", "transfer"]


def raising(error):
    def app():
        raise error

    return app


def test_a_users_mistake_is_printed_alone(capsys):
    with pytest.raises(SystemExit) as left:
        run_cli(raising(InputError("no file here")))
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: no file here\n"


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_cli(raising(ZeroDivisionError()))


def test_progress_in_a_log_is_whole_lines_with_rate_and_time_left(monkeypatch):
    clock, out = iter([0.0, 4.0, 11.0, 12.0]), io.StringIO()
    monkeypatch.setattr("encoders.runtime.cli.time.monotonic", lambda: next(clock))
    monkeypatch.setattr(sys, "stderr", out)
    with progress_counter("reading", 100) as tick:
        tick(10)  # at 4 s: too soon for a line
        tick(45)  # at 11 s
        tick(45)  # the end
    assert out.getvalue().splitlines() == ["reading: 55/100  5.0/s  9 s left", "reading: 100/100  8.3/s  0 s left"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers_at_once_and_names_every_command(command):
    script = Path(sys.executable).with_name(command)
    took = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run([script, "--help"], capture_output=True, text=True)
        after = os.times()
        took.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert done.returncode == 0
    assert "Commands" in done.stdout
    assert min(took) < 1.0  # seconds of CPU, which others on the machine do not lengthen; half of it with files at hand


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_command_is_exit_2(command):
    done = subprocess.run([Path(sys.executable).with_name(command), "frobnicate"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
