"""Keeps the overview `index.html` of the working folder up to date. Commands that change an entry are marked by `refreshes_gallery`.

This file imports nothing slow, because every command line imports it.
"""

import errno
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from encoders.runtime.errors import InputError
from encoders.runtime.storage_errors import StorageError

P = ParamSpec("P")
R = TypeVar("R")
INDEX_NAME = "index.html"
HEAD_BYTES = 400  # of an existing page, in which its generator is named


def refreshes_gallery(command: Callable[P, R]) -> Callable[P, R]:
    """The command, after which the overview is written again, also if it failed: a run that diverged has another state."""

    @wraps(command)
    def refreshing(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            result = command(*args, **kwargs)
        except BaseException:
            refresh_gallery(quiet=True)
            raise
        refresh_gallery()
        return result

    return refreshing


def refresh_gallery(quiet: bool = False) -> None:
    """Writes the overview again. Never raises; does nothing in a folder without entries, or that cannot be written.

    quiet: a full disk is not mentioned, because the command that failed has said it.
    Of several processes of one command, the first one writes it."""
    if os.environ.get("RANK", "0") != "0":
        return
    try:
        from encoders.runtime.paths import home_dir

        write_gallery(home_dir())
    except (OSError, InputError) as error:
        if isinstance(error, StorageError) and not quiet and error.number != errno.EROFS:  # a folder of somebody else is left as it is
            print(f"note: the overview was not written: {error}", file=sys.stderr)
    except Exception as error:  # noqa: BLE001 (whatever is wrong with the overview, the command has done its work)
        print(f"note: the overview {INDEX_NAME} was not written: {type(error).__name__}: {error}", file=sys.stderr)


def write_gallery(home: Path, out: Path | None = None) -> int:
    """Writes the overview of a working folder and returns the number of its entries; nothing is written without an entry.

    out: the file; by default `index.html` of the folder, whose links are relative to it. Raises InputError when a file of that name is not
    an overview, or when it cannot be written."""
    from encoders.gallery.index_page import render_index
    from encoders.gallery.read_entries import read_entries
    from encoders.runtime.files import atomic_write

    entries = read_entries(home)
    if not entries:
        return 0
    out = out or home / INDEX_NAME
    if not is_replaceable(out):
        raise InputError(f"{out} is not an overview written by isograft, and is kept; move it away")
    with atomic_write(out) as part:
        part.write_text(render_index(entries, home.name))
    return len(entries)


def is_replaceable(out: Path) -> bool:
    """Whether a file does not exist, or is an overview."""
    from encoders.gallery.index_page import GENERATOR

    try:
        with out.open("rb") as file:
            return f'content="{GENERATOR}"'.encode() in file.read(HEAD_BYTES)
    except FileNotFoundError:
        return True
