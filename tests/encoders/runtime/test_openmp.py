"""Waiting OpenMP threads spin briefly in our commands, unless the user decided otherwise."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from encoders.runtime.openmp import BOUNDED_SPIN, USER_CHOICES, bound_spinning

# Runs a command until it imports torch, NumPy, faiss or scikit-learn, whose OpenMP reads the variables; prints them as they are then.
PROBE = """
import os, runpy, sys

class Probe:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "numpy", "scipy", "faiss", "sklearn"):
            print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("KMP_BLOCKTIME"), os.environ.get("OMP_WAIT_POLICY"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Probe())
start, *sys.argv = sys.argv[1:]
if start == "module":
    runpy.run_module(sys.argv[0], run_name="__main__")
else:
    from importlib.metadata import entry_points
    next(iter(entry_points(group="console_scripts", name=sys.argv[0]))).load()()
"""
COMMANDS = (["encoders", "verify"], ["pretrain", "plan", "cxr_moco_tiny", "data.store=x.h5"], ["transfer", "bench", "--encoder", "a"])


def _variables_when_imported(start, command, **variables):
    env = {name: value for name, value in os.environ.items() if name not in USER_CHOICES} | variables
    done = subprocess.run([sys.executable, "-c", PROBE, start, *command], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("start", ["module", "script"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_bound_the_spin_before_anything_with_openmp_is_imported(start, command):
    assert _variables_when_imported(start, command) == [*BOUNDED_SPIN.values(), "None"]


def test_the_users_wait_policy_reaches_openmp_unchanged():
    assert _variables_when_imported("module", COMMANDS[0], OMP_WAIT_POLICY="ACTIVE") == ["None", "None", "ACTIVE"]


@pytest.mark.parametrize("name", USER_CHOICES)
def test_each_choice_of_the_user_wins(name):
    environment = {name: "7"}
    assert not bound_spinning(environment)
    assert environment == {name: "7"}


@pytest.mark.parametrize("given", [{}, {"OMP_NUM_THREADS": "8"}, {"OMP_WAIT_POLICY": ""}])
def test_what_is_no_choice_of_how_to_wait_does_not_matter(given):
    environment = dict(given)
    assert bound_spinning(environment)
    assert environment == given | BOUNDED_SPIN


def test_the_libgomp_of_torch_reads_the_spin_count():
    library = Path(find_spec("torch").origin).parent / "lib" / "libgomp.so.1"
    if not library.exists():
        pytest.skip(f"this torch does not contain libgomp: {library}")
    env = {name: value for name, value in os.environ.items() if name not in USER_CHOICES} | {"OMP_DISPLAY_ENV": "VERBOSE"}
    code = (
        "import ctypes, sys; from encoders.runtime.openmp import bound_spinning; "
        f"assert len(sys.argv) == 1 or bound_spinning(); ctypes.CDLL({str(library)!r})"
    )
    shown = [
        subprocess.run([sys.executable, "-c", code, *more], env=env, capture_output=True, text=True, check=True).stderr
        for more in ([], ["bounded"])
    ]
    assert "GOMP_SPINCOUNT = '300000'" in shown[0]
    assert f"GOMP_SPINCOUNT = '{BOUNDED_SPIN['GOMP_SPINCOUNT']}'" in shown[1]
