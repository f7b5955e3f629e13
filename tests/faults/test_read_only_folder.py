"""A working folder on a read-only mount: every command that must write says so in one sentence, and changes nothing."""

import json
import os
from pathlib import Path

import pytest

from tests.faults.commands import CASES, a_task, call, two_entries
from tests.faults.trial import run_in_fork
from tests.forked import run_forked
from tests.full_disk import read_only

# What only reads, or can do without what it cannot write, is not among them.
WRITERS = ["ingest", "ingest-jpeg", "tasks-add", "pretrain", "import", "import-replace", "export", "combine", "remove", "embed", "bench"]


def prepare(folder):
    os.chdir(folder)
    two_entries(folder)
    a_task(folder)


def try_writers(folder, result):
    """How each command ends, as JSON; forked from this process, which imports the packages once."""
    ended = {name: run_in_fork(folder, lambda name=name: call(*CASES[name].words)) for name in WRITERS}
    result.write_text(json.dumps({name: [one.describe_fault(), one.errors] for name, one in ended.items()}))


def list_content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    env = {"ISOGRAFT_HOME": str(folder)}
    assert run_forked(prepare, folder, logs=tmp_path / "prepare", env=env).status == 0
    return folder


@pytest.mark.long
def test_every_writer_says_that_the_folder_is_read_only(folder, tmp_path):
    before = list_content(folder)
    with read_only(folder):
        ended = run_forked(try_writers, folder, tmp_path / "ended.json", logs=tmp_path / "try", env={"ISOGRAFT_HOME": str(folder)})
    assert ended.status == 0, ended.errors
    found = json.loads((tmp_path / "ended.json").read_text())
    assert {name: errors for name, (fault, errors) in found.items() if fault} == {}
    assert {name: errors for name, (_, errors) in found.items() if "read-only" not in errors.lower()} == {}
    assert list_content(folder) == before
    again = run_forked(call, *CASES["remove"].words, logs=tmp_path / "again", env={"ISOGRAFT_HOME": str(folder)})
    assert (again.status, Path(folder / "zoo" / "start").exists()) == (0, False)
