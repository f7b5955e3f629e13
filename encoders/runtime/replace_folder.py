"""Replacing a folder by another one: a reader finds the old or the new one, whole."""

import ctypes
import os
import shutil
from pathlib import Path

from encoders.runtime.files import sync_folder

AT_FDCWD = -100  # paths are relative to the working folder
RENAME_EXCHANGE = 2  # of renameat2, Linux 3.15


def replace_folder(new: Path, old: Path) -> None:
    """`new` takes the place and the name of `old`, which is removed. Both are folders of one file system.

    One operation where the system has it (Linux); elsewhere two, between which there is no folder of that name. If the second fails, the
    old folder is put back."""
    if exchange_names(new, old):
        sync_folder(old.parent)
        shutil.rmtree(new)  # the old one
        return
    aside = new.with_name(f"{new.name}.old")
    old.rename(aside)
    try:
        new.rename(old)
    except BaseException:
        aside.rename(old)
        raise
    sync_folder(old.parent)
    shutil.rmtree(aside)


def exchange_names(a: Path, b: Path) -> bool:
    """Whether the names of two existing files or folders were exchanged; False where the system or the file system cannot do it."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return bool(rename(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE) == 0)
