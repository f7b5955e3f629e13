"""Copies of stores on a node's own disk, for jobs whose shared file system is slow: made once a node, checked, and found again by name.

`ISOGRAFT_STAGE` names the folder. A recipe keeps naming the shared file; `local` gives the copy where this node has one.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic, sha256_file, writable
from encoders.store import expanded
from encoders.store_part import Part


def folder() -> Path | None:
    """The folder on the node's own disk, or None when nothing is staged."""
    named = os.environ.get("ISOGRAFT_STAGE")
    return Path(named) if named else None


def copy_of(path: Path, where: Path) -> Path:
    """The copy's path: named by the fingerprint of the pixels, so that another version of a store is another file."""
    return where / f"{Part(path).fingerprint[:16]}-{path.name}"


def whole(copy: Path, path: Path) -> bool:
    """Whether `copy` has the size and fingerprint of `path`."""
    if not copy.exists() or copy.stat().st_size != path.stat().st_size:
        return False
    return Part(copy).fingerprint == Part(path).fingerprint


def stage(stores: str | Path | Sequence[str | Path], where: Path) -> list[Path]:
    """A whole copy of each store file in `where`; a copy of an earlier start is kept. Returns their paths.

    Raises InputError when the disk is too small, or when what was written does not read back as what was read."""
    writable(where)
    made = []
    for path in expanded(stores):
        copy, size = copy_of(path, where), path.stat().st_size
        if not whole(copy, path):
            if (free := shutil.disk_usage(where).free) < size:
                raise InputError(f"cannot stage {path}: it has {size:,} bytes, {where} has {free:,} free; choose another --stage or none")
            with atomic(copy) as part:
                shutil.copyfile(path, part)
                if sha256_file(part) != sha256_file(path):
                    raise InputError(f"the copy of {path} in {where} does not read back as it was written: the disk is not to be trusted")
        made.append(copy)
    return made


def local(stores: str | Path | Sequence[str | Path]) -> str | Path | Sequence[str | Path]:
    """The staged copies of `stores`, or `stores` themselves where nothing is staged. Raises InputError when a copy is missing or torn."""
    where = folder()
    if where is None:
        return stores
    pairs = [(copy_of(path, where), path) for path in expanded(stores)]
    missing = [path for copy, path in pairs if not whole(copy, path)]
    if missing:
        raise InputError(f"ISOGRAFT_STAGE is {where}, but it has no whole copy of {missing[0]}: `pretrain stage` makes one, or unset it")
    return [copy for copy, _ in pairs]
