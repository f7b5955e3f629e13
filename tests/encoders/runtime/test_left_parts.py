"""What killed processes left is removed; what a living process writes is not."""

import os
import socket

from encoders.runtime.files import atomic_write
from encoders.runtime.left_parts import remove_left_parts

HOST = socket.gethostname()
NO_PROCESS = 2**22 + 1  # more than Linux gives


def test_parts_of_dead_processes_are_removed_and_nothing_else(tmp_path):
    names = ".run.json", ".step-00000001.pt", ".a b.\n", ".lock"
    left = [f"{name}.{HOST}-{NO_PROCESS}.part" for name in names]
    living = [f".run.json.{HOST}-{os.getpid()}.part", f".run.json.{HOST}-1.part"]
    other = ["run.json", ".hidden", ".run.json.elsewhere-5.part", f"run.json.{HOST}-{NO_PROCESS}.part"]
    for name in (*left, *living, *other):
        (tmp_path / name).write_text("x")
    (tmp_path / f".entry.{HOST}-{NO_PROCESS}.part").mkdir()
    (tmp_path / f".entry.{HOST}-{NO_PROCESS}.part" / "card.yaml").write_text("x")
    old = tmp_path / ".old.elsewhere-5.part"
    old.write_text("x")
    os.utime(old, (0, 0))
    assert remove_left_parts(tmp_path) == len(left) + 2
    assert sorted(os.listdir(tmp_path)) == sorted([*living, *other])


def test_the_part_of_a_write_in_progress_stays_and_a_missing_folder_is_no_error(tmp_path):
    with atomic_write(tmp_path / "a") as part:
        part.write_text("whole")
        assert remove_left_parts(tmp_path) == 0
    assert (tmp_path / "a").read_text() == "whole"
    assert remove_left_parts(tmp_path / "missing") == 0
