"""Commands that are forked from a warm server behave as those of a new interpreter do."""

import os
import signal
import subprocess
import time

import pytest

SCRIPT = """
import os, sys
print(sys.argv[1:], sys.stdin.read(), os.getcwd(), os.environ.get("WORD"), sys.path[0], "torch" in sys.modules)
print("problem", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""
WAITING = """
import os, signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))
print(os.getpid(), flush=True)
time.sleep(60)
"""


def start(warm_commands, *words, **more):
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([warm_commands / "python", *map(str, words)], text=True, **streams, **more)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def waiting(warm_commands, tmp_path):
    """A program whose command waits, and the process id of the command."""
    (tmp_path / "waiting.py").write_text(WAITING)
    program = start(warm_commands, tmp_path / "waiting.py")
    yield program, int(program.stdout.readline())
    program.kill()
    program.communicate()


def test_words_streams_folder_environment_and_status_are_those_of_the_program(warm_commands, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "below").mkdir()
    for status in (0, 3):
        environment = os.environ | {"WORD": f"given {status}"}
        program = start(warm_commands, tmp_path / "script.py", status, "two words", cwd=tmp_path / "below", env=environment)
        printed, errors = program.communicate("input")
        assert printed == f"{[str(status), 'two words']} input {tmp_path / 'below'} given {status} {tmp_path} True\n"
        assert errors == "problem\n"
        assert program.returncode == status


def test_an_exception_is_printed_and_is_status_one(warm_commands, tmp_path):
    (tmp_path / "script.py").write_text("1 / 0")
    program = start(warm_commands, tmp_path / "script.py")
    assert "ZeroDivisionError" in program.communicate()[1]
    assert program.returncode == 1


def test_a_console_script_is_the_installed_one(warm_commands):
    done = subprocess.run([warm_commands / "transfer", "frobnicate"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "frobnicate" in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGUSR1, 75), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_reaches_the_command_and_decides_how_the_program_ends(waiting, number, status):
    program, _ = waiting
    program.send_signal(number)
    assert program.wait(20) == status


def test_a_command_dies_with_its_program(waiting):
    program, pid = waiting
    assert is_running(pid)
    program.kill()
    end = time.monotonic() + 20
    while is_running(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_running(pid)


def test_a_variable_that_libraries_read_on_import_must_be_that_of_the_server(warm_commands, tmp_path):
    (tmp_path / "script.py").write_text("print('ran')")
    program = start(warm_commands, tmp_path / "script.py", env=os.environ | {"OMP_NUM_THREADS": "3"})
    printed, errors = program.communicate()
    assert (printed, program.returncode) == ("", 1)
    assert "OMP_NUM_THREADS" in errors
    program = start(warm_commands, tmp_path / "script.py", env=os.environ | {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"})
    assert program.communicate() == ("ran\n", "")  # what a command that was called in this process leaves
