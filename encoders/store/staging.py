"""Copies of stores on a node's own disk, for jobs whose shared file system is slow: made once a node, checked, and found again by name.

`ISOGRAFT_STAGE` names the folder. A recipe keeps naming the shared file; `local` gives the copy where this node has one.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write, ensure_writable, sha256_file
from encoders.store.part import StorePart
from encoders.store.store import expand_paths


def staging_dir() -> Path | None:
    """The folder on the node's own disk, or None when nothing is staged."""
    named = os.environ.get("ISOGRAFT_STAGE")
    return Path(named) if named else None


def staged_path(path: Path, where: Path) -> Path:
    """The copy's path: named by the fingerprint of the pixels, so that another version of a store is another file."""
    return where / f"{StorePart(path).fingerprint[:16]}-{path.name}"


def is_whole_copy(copy: Path, path: Path) -> bool:
    """Whether `copy` has the size and fingerprint of `path`."""
    if not copy.exists() or copy.stat().st_size != path.stat().st_size:
        return False
    return StorePart(copy).fingerprint == StorePart(path).fingerprint


def stage_stores(stores: str | Path | Sequence[str | Path], where: Path) -> list[Path]:
    """A whole copy of each store file in `where`; a copy of an earlier start is kept. Returns their paths.

    Raises InputError when the disk is too small, or when what was written does not read back as what was read."""
    ensure_writable(where)
    made = []
    for path in expand_paths(stores):
        copy, size = staged_path(path, where), path.stat().st_size
        if not is_whole_copy(copy, path):
            if (free := shutil.disk_usage(where).free) < size:
                raise InputError(f"cannot stage {path}: it has {size:,} bytes, {where} has {free:,} free; choose another --stage or none")
            with atomic_write(copy) as part:
                shutil.copyfile(path, part)
                if sha256_file(part) != sha256_file(path):
                    raise InputError(f"the copy of {path} in {where} does not read back as it was written: the disk is not to be trusted")
        made.append(copy)
    return made


def resolve_staged(stores: str | Path | Sequence[str | Path]) -> str | Path | Sequence[str | Path]:
    """The staged copies of `stores`, or `stores` themselves where nothing is staged. Raises InputError when a copy is missing or torn."""
    where = staging_dir()
    if where is None:
        return stores
    pairs = [(staged_path(path, where), path) for path in expand_paths(stores)]
    missing = [path for copy, path in pairs if not is_whole_copy(copy, path)]
    if missing:
        raise InputError(f"ISOGRAFT_STAGE is {where}, but it has no whole copy of {missing[0]}: `pretrain stage` makes one, or unset it")
    return [copy for copy, _ in pairs]
