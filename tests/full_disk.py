"""File systems for tests: a full disk, one that becomes read-only, a folder that is mounted read-only.

Where mounting is not allowed, tests are skipped."""

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder, kib):
    """`folder`, a file system of its own (tmpfs) with room for `kib` KiB."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mount_or_skip("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def read_only(folder):
    """`folder` mounted on itself, read-only: inside the block nobody may write there, root neither."""
    mount_or_skip("--bind", str(folder), str(folder))
    try:
        mount_or_skip("-o", "remount,bind,ro", str(folder))
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def mount_or_skip(*words):
    try:
        done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
        refusal = done.stderr.strip() if done.returncode else ""
    except FileNotFoundError:
        refusal = "there is no command `mount`"
    if refusal:
        pytest.skip(f"nothing can be mounted here (it needs root): {refusal}")


def fill(folder, leave_kib=0):
    """Writes a file that takes all the room except `leave_kib` KiB."""
    disk = os.statvfs(folder)
    (Path(folder) / "filler").write_bytes(bytes(disk.f_bavail * disk.f_frsize - leave_kib * 1024))


def make_read_only(folder):
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
