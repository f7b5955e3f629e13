"""The ledger: whole lines, whoever writes at the same time and whatever a crash left behind."""

import json
import os
import subprocess
import sys
import threading

import pytest

from encoders.runtime.errors import InputError
from transfer.records import ledger
from transfer.records.ledger import append_to_ledger, ledger_path, read_ledger, read_ledger_lines

WRITER = """
import sys
from pathlib import Path
from transfer.records.ledger import append_to_ledger
for i in range(50):
    append_to_ledger({"split": "s", "writer": sys.argv[2], "i": i, "padding": "x" * 5000}, Path(sys.argv[1]))
"""


def test_lines_of_several_processes_are_all_complete():
    path = ledger_path()
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(w)]) for w in range(3)]
    assert [w.wait(timeout=120) for w in writers] == [0, 0, 0]
    entries, unreadable = read_ledger_lines(path)
    assert unreadable == 0
    assert sorted((e["writer"], e["i"]) for e in entries) == sorted((str(w), i) for w in range(3) for i in range(50))


def test_lines_of_several_threads_are_all_complete():
    threads = [threading.Thread(target=append_to_ledger, args=({"split": "s", "i": i}, ledger_path())) for i in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(e["i"] for e in read_ledger()) == list(range(20))


# A line as the version before digests wrote it; the first versions had no `patients`, `shift`, ..., and no `test_set`.
OLDER = {
    "card": "c", "draw": 0, "encoder": "e", "encoder_sha256": "f", "fold": 0, "folds": 1, "fraction": 1.0, "labels": "l", "partition": "p",
    "protocol": "knn", "protocol_hash": "h", "seed": 0, "selection": "0f", "split": "s", "store": "x", "task": "sick", "time": 1.7e9,
}  # fmt: skip
OLDER_LINES = [json.dumps(OLDER), json.dumps({**OLDER, "patients": None, "shift": "gamma", "strength": 2, "test_set": "t"}, sort_keys=True)]


@pytest.mark.parametrize("older", OLDER_LINES)
@pytest.mark.parametrize("end", ["", "\n", "\n\n\n"])
def test_a_whole_line_of_an_earlier_version_without_a_digest_is_read(older, end):
    path = ledger_path()
    path.parent.mkdir(parents=True)
    path.write_text(older + end)
    for i in range(2):
        append_to_ledger({"i": i}, path)
    assert read_ledger_lines(path) == ([json.loads(older), {"i": 0}, {"i": 1}], 0)


TORN = ['{"split": "s", "enc', OLDER_LINES[0][:-1], '{"split": "s"}', "\0\0\0", '{"split": "s"}\n\n\n', "\xff\n", "7\n", "[]\n"]


@pytest.mark.parametrize("torn", TORN)
def test_a_line_after_a_crash_is_not_joined_to_what_the_crash_left(torn):
    path = ledger_path()
    path.parent.mkdir(parents=True)
    path.write_text(torn, encoding="latin-1")
    for i in range(2):
        append_to_ledger({"i": i}, path)
    assert read_ledger_lines(path) == ([{"i": 0}, {"i": 1}], 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [('"sick"', '"sicj"'), ('"fold": 0', '"fold": 1'), ('"digest"', '"digesu"'), ('"digest": "', '"digest": "0'), ('"split"', '"spliu"')],
)
def test_a_line_that_was_changed_after_it_was_written_is_counted_as_unreadable(old, new):
    path = ledger_path()
    append_to_ledger(OLDER, path)
    append_to_ledger({**OLDER, "encoder": "other"}, path)
    lines = path.read_text().splitlines(keepends=True)
    assert old in lines[0]
    path.write_text(lines[0].replace(old, new) + lines[1])
    assert read_ledger_lines(path) == ([{**OLDER, "encoder": "other"}], 1)


@pytest.mark.parametrize("digest", [None, "", 0, [], "0" * 32])
def test_a_line_with_a_digest_that_is_none_is_not_taken_for_one_of_an_earlier_version(digest):
    path = ledger_path()
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**OLDER, "digest": digest}) + "\n")
    assert read_ledger_lines(path) == ([], 1)


def test_a_line_that_the_disk_takes_only_in_part_raises(monkeypatch):
    monkeypatch.setattr(ledger.os, "write", lambda handle, data, write=os.write: write(handle, data[:10]))
    with pytest.raises(InputError, match="disk full"):
        append_to_ledger({"split": "s"}, ledger_path())


def test_a_ledger_that_cannot_be_locked_is_written_all_the_same(monkeypatch):
    def refuse(handle, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(ledger.fcntl, "flock", refuse)
    append_to_ledger({"i": 1}, ledger_path())
    assert read_ledger() == [{"i": 1}]
