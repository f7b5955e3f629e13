"""Writing a folder of several files as a whole: all of them are new, or all are as before."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from encoders.runtime.errors import InputError
from encoders.runtime.files import ensure_writable, process_tag, sync_folder
from encoders.runtime.replace_folder import replace_folder
from encoders.runtime.storage_errors import explain_storage_errors, name_lost


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty temporary folder, which takes the place of `folder` when the block succeeds and is deleted otherwise.

    What `folder` held before is removed. A folder that cannot be exchanged, a mount point or the working folder, gets the files one by one.
    Raises InputError when the folder above cannot be written, StorageError when the storage refuses it; `folder` is then as before."""
    folder = folder.resolve()
    ensure_writable(folder.parent)
    part = folder.with_name(f".{folder.name}.{process_tag()}.part")
    shutil.rmtree(part, ignore_errors=True)
    intact = f"the previous {folder.name} is intact" if folder.exists() and any(folder.iterdir()) else ""
    try:
        with name_lost(folder.name, intact, str(folder.parent)), explain_storage_errors(folder.parent):
            part.mkdir()
            yield part
            sync_folder(part)
            _put_in_place(part, folder)
    except PermissionError as error:
        raise InputError(f"cannot write {folder}: {error.strerror}; choose a folder that you may write to") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _put_in_place(part: Path, folder: Path) -> None:
    """Gives `part` the name of `folder`, which another process may write at the same moment: the later one stays."""
    try:
        part.rename(folder)  # there is none of that name, or it is empty
        sync_folder(folder.parent)
    except OSError:
        if not folder.exists():
            raise
        if folder.is_mount() or folder == Path.cwd():
            _move_files(part, folder)
        else:
            replace_folder(part, folder)


def _move_files(part: Path, folder: Path) -> None:
    """The files of `part` replace those of `folder`, one by one; others are removed."""
    names = {path.name for path in part.iterdir()}
    for path in sorted(part.iterdir()):
        os.replace(path, folder / path.name)
    for path in folder.iterdir():
        if path.name not in names and path.is_file():
            path.unlink()
    sync_folder(folder)
