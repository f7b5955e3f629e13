"""The boundary of the command lines: user errors are printed alone with status 2, other errors keep their traceback; `--version`."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from encoders import __version__
from encoders.runtime.cli import progress_counter, run_cli
from encoders.runtime.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ["encoders", "pretrain", "transfer"]


def raising(error):
    def app():
        raise error

    return app


def test_a_user_error_is_printed_alone(capsys):
    with pytest.raises(SystemExit) as exit_info:
        run_cli(raising(InputError("no file here")))
    assert exit_info.value.code == 2
    assert capsys.readouterr().err == "error: no file here\n"


def test_any_other_error_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_cli(raising(ZeroDivisionError()))


def test_progress_in_a_log_file_is_complete_lines_with_rate_and_time_left(monkeypatch):
    now, out = [0.0], io.StringIO()
    monkeypatch.setattr("encoders.runtime.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", out)
    with progress_counter("reading", 100) as tick:
        for now[0], n in ((4.0, 10), (11.0, 45), (14.0, 25), (15.0, 20)):  # too soon for a line; a line; too soon; the end
            tick(n)
    assert out.getvalue().splitlines() == ["reading: 55/100  5.0/s  7 s left", "reading: 100/100  6.7/s  in 15 s"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_fast_and_lists_the_commands(command):
    script = Path(sys.executable).with_name(command)
    seconds = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run([script, "--help"], capture_output=True, text=True)
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert done.returncode == 0
    assert "Commands" in done.stdout
    assert min(seconds) < 1.0  # CPU time, which does not depend on other processes; half of it with files in the cache


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_command_is_exit_2(command):
    done = subprocess.run([Path(sys.executable).with_name(command), "frobnicate"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_version_is_that_of_the_package(command):
    done = subprocess.run([Path(sys.executable).with_name(command), "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"isograft {__version__}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_package_runs_as_a_module(command):
    """`python -m pretrain` is the command `pretrain`."""
    module, script = (
        subprocess.run([*start, "--help"], capture_output=True, text=True, cwd=ROOT)
        for start in ([sys.executable, "-m", command], [Path(sys.executable).with_name(command)])
    )
    assert (module.returncode, module.stderr) == (0, "")
    assert module.stdout.partition("\n")[2] == script.stdout.partition("\n")[2]  # the first line names the program
