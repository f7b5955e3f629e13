"""Files that are either whole or absent."""

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from encoders.runtime.errors import InputError


def walk_files(folder: Path) -> Iterator[Path]:
    """Every file below a folder, nothing hidden and in no hidden folder.

    Links to folders are followed where they lead to what is not below the folder already, so each file comes once and under its own name
    rather than that of a link (a link `latest` to one of its neighbours)."""
    seen: set[str] = set()
    roots = [str(folder)]
    while roots:
        links: list[str] = []
        for root in roots:
            for where, folders, names in os.walk(root):
                if (real := os.path.realpath(where)) in seen:
                    folders.clear()
                    continue
                seen.add(real)
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                links += [link for name in folders if os.path.islink(link := os.path.join(where, name))]  # os.walk does not enter these
                yield from (path for name in sorted(names) if not name.startswith(".") and (path := Path(where, name)).is_file())
        roots = links


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`; it is flushed to disk and takes its place when the block ends well, and is removed otherwise.

    The name carries host and process id, so that two processes that write the same file, on one machine or two, share no temporary.
    Raises InputError when the folder cannot be written."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{process_tag()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as wrong:
        raise InputError(f"cannot write {path}: {wrong.strerror}; choose a folder that you may write to") from wrong
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def process_tag() -> str:
    """This process, unlike any other that may write to the same folder: two hosts of a shared disk can have equal process ids."""
    return f"{socket.gethostname()}-{os.getpid()}"


def ensure_writable(folder: str | Path) -> Path:
    """`folder`, made where it is missing. Raises InputError when nothing can be written there."""
    folder = Path(folder)
    probe = folder / f".probe.{process_tag()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as wrong:
        raise InputError(f"cannot write in {folder}: {wrong.strerror}; choose a folder that you may write to") from wrong
    return folder


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` durable: the folder's own entry must reach the disk too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | Path, value: Any) -> None:
    """`value` as indented JSON, atomically; NaN is refused because other readers of JSON refuse it."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
    with atomic_write(path) as part:
        part.write_text(text + "\n")


def read_json(path: str | Path) -> Any:
    """The value in a JSON file. Raises InputError when it is missing or is not JSON."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError as wrong:
        raise InputError(f"{path} does not exist") from wrong
    except (json.JSONDecodeError, UnicodeDecodeError) as wrong:
        raise InputError(f"{path} is not JSON: {wrong}") from wrong
