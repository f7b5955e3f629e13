"""The ledger: whole lines, whoever writes at the same time and whatever a crash left behind."""

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


@pytest.mark.parametrize("torn", ['{"split": "s", "enc', '{"split": "s"}', "\0\0\0", '{"split": "s"}\n\n\n', "\xff\n", "7\n", "[]\n"])
def test_a_line_after_a_crash_is_not_joined_to_what_the_crash_left(torn):
    path = ledger_path()
    path.parent.mkdir(parents=True)
    path.write_text(torn, encoding="latin-1")
    for i in range(2):
        append_to_ledger({"i": i}, path)
    entries, unreadable = read_ledger_lines(path)
    assert [e["i"] for e in entries if "i" in e] == [0, 1]
    complete = torn.startswith('{"split": "s"}')
    assert (len(entries), unreadable) == ((3, 0) if complete else (2, 1))


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
