"""Whatever write of a command fails, for whatever reason: one sentence, exit status 1, nothing torn, and it goes on after."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.commands import CASES

ROOT = Path(__file__).resolve().parents[2]
WRITES = 5  # of each command
# Two processes import the packages once each.
GROUPS = [[name for name, case in CASES.items() if (case.words[0] == "encoders") is encoders] for encoders in (True, False)]


@pytest.fixture
def library(tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler on Linux, for the library that makes writes fail")
    file = tmp_path / "fail_nth.so"
    source = Path(__file__).with_name("fail_nth.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-w", "-o", str(file), str(source), "-ldl"], check=True)
    return file


@pytest.mark.long
@pytest.mark.parametrize("names", GROUPS, ids=["encoders", "pretrain and transfer"])
def test_a_failed_write_is_one_sentence_and_leaves_what_was_there(library, tmp_path, names):
    env = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "tests.faults.every_write", str(library), str(tmp_path / "work"), str(WRITES), *names]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["case"] for line in lines} == set(names)
    assert len(lines) == WRITES * len(names)
    assert [line for line in lines if line["fault"]] == []
    assert [line for line in lines if line["torn"]] == []
    assert [line for line in lines if line["again"] != line["usual"]] == []
    assert sum(line["status"] == 1 for line in lines) > len(lines) // 3  # the others were of files that a command can do without
