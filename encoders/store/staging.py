"""Copies of stores on a node's local disk, for jobs with a slow shared file system: copied once per node, verified, and found by name.

`ISOGRAFT_STAGE` names the folder. A recipe names the shared file; `resolve_staged` returns the copy.
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
    """The folder on the node's local disk, or None when nothing is staged."""
    folder = os.environ.get("ISOGRAFT_STAGE")
    return Path(folder) if folder else None


def staged_path(path: Path, folder: Path) -> Path:
    """The path of the copy, which contains the fingerprint of the pixels: another version of a store is another file."""
    return folder / f"{StorePart(path).fingerprint[:16]}-{path.name}"


def is_complete_copy(copy: Path, path: Path) -> bool:
    """Whether `copy` has the size and fingerprint of `path`."""
    if not copy.exists() or copy.stat().st_size != path.stat().st_size:
        return False
    return StorePart(copy).fingerprint == StorePart(path).fingerprint


def stage_stores(stores: str | Path | Sequence[str | Path], folder: Path) -> list[Path]:
    """The paths of complete copies of each store file in `folder`; an existing complete copy is kept.

    Raises InputError when the disk is too small, or when a copy does not read back as it was written."""
    ensure_writable(folder)
    copies = []
    for path in expand_paths(stores):
        copy, size = staged_path(path, folder), path.stat().st_size
        if not is_complete_copy(copy, path):
            if (free := shutil.disk_usage(folder).free) < size:
                raise InputError(f"cannot stage {path}: it has {size:,} bytes, {folder} has {free:,} free; choose another --stage or none")
            with atomic_write(copy) as part:
                shutil.copyfile(path, part)
                if sha256_file(part) != sha256_file(path):
                    raise InputError(
                        f"the copy of {path} in {folder} does not read back as written: the disk may be faulty; choose another --stage"
                    )
        copies.append(copy)
    return copies


def resolve_staged(stores: str | Path | Sequence[str | Path]) -> str | Path | Sequence[str | Path]:
    """The staged copies of `stores`; `stores` itself when nothing is staged. Raises InputError when a copy is missing or incomplete."""
    folder = staging_dir()
    if folder is None:
        return stores
    pairs = [(staged_path(path, folder), path) for path in expand_paths(stores)]
    missing = [path for copy, path in pairs if not is_complete_copy(copy, path)]
    if missing:
        raise InputError(
            f"ISOGRAFT_STAGE is {folder}, which has no complete copy of {missing[0]}: run `pretrain stage`, or unset ISOGRAFT_STAGE"
        )
    return [copy for copy, _ in pairs]
