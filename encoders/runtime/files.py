"""Atomic writes, checksums, JSON files and walks over folders."""

import hashlib
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from gzip import GzipFile
from pathlib import Path
from typing import IO, Any

from encoders.runtime.errors import InputError
from encoders.runtime.read_errors import describe_reason
from encoders.runtime.storage_errors import explain_storage_errors, find_storage_error

UNPACKED_PIECE_BYTES = 1 << 20


def walk_files(folder: Path, report: Callable[[str, str], None] = lambda path, reason: None) -> Iterator[Path]:
    """Every file below a folder that is neither hidden nor in a hidden folder.

    report: called with the path and the reason for what stands there but is no readable file or folder: a link without a target, a folder
    that cannot be listed, a pipe, a link to a folder above it.

    Links to files are files, wherever they lead. Links to folders are followed only where the target is not below the folder itself, so
    that each file is returned once and under its own name, not under that of a link (such as `latest`)."""
    seen: set[str] = set()
    roots = [str(folder)]

    def report_folder(error: OSError) -> None:
        report(str(error.filename), f"is a folder that cannot be read: {error.strerror}")

    while roots:
        links: list[str] = []
        for root in roots:
            for where, folders, names in os.walk(root, onerror=report_folder):
                if (real := os.path.realpath(where)) in seen:
                    folders.clear()
                    continue
                seen.add(real)
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                for link in (link for name in folders if os.path.islink(link := os.path.join(where, name))):  # os.walk does not enter these
                    target = os.path.realpath(link)
                    if target not in seen and os.path.commonpath([target, real]) == target:
                        report(link, f"is a link to {target}, a folder above it, which is not searched")
                    else:
                        links.append(link)
                for path in (Path(where, name) for name in sorted(names) if not name.startswith(".")):
                    if problem := describe_no_file(path):
                        report(str(path), problem)
                    else:
                        yield path
        roots = links


def read_at_most(file: IO[bytes] | GzipFile, limit: int) -> bytes:
    """The rest of a file, or `limit` bytes of it. A reader that unpacks allocates what it is asked for, so it is asked for little."""
    pieces, left = [], limit
    while left and (piece := file.read(min(left, UNPACKED_PIECE_BYTES))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def describe_no_file(path: Path) -> str:
    """Why a path leads to no regular file, as the end of a sentence that begins with its name; "" if it leads to one."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return f"is a link to {os.readlink(path)}, which does not exist" if path.is_symlink() else "does not exist"
    except OSError as error:  # a link to itself, or a folder above that may not be entered
        return f"cannot be read: {error.strerror}"
    if stat.S_ISDIR(mode):
        return "is a folder"
    return "" if stat.S_ISREG(mode) else "is neither a file nor a folder"


@contextmanager
def atomic_write(path: str | Path, private: bool = False) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which replaces `path` when the block succeeds and is deleted otherwise.

    private: only this user may read the file (mode 0600), from the moment it exists.

    It is flushed to disk first. Its name contains host and process id, so that two processes that write the same file do not share it.
    Raises InputError when the folder cannot be written, StorageError when the disk is full or refuses the write for another reason of its
    own; `path` is then as before."""
    path = Path(path)
    intact = f"the previous {path.name} is intact" if path.exists() else ""
    part = path.with_name(f".{path.name}.{process_tag()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch(mode=0o600 if private else 0o666)
    except OSError as error:
        if known := find_storage_error(error, path, path.name, intact):
            raise known from error
        raise InputError(f"cannot write {path}: {error.strerror}; choose a folder that you may write to") from error
    try:
        with explain_storage_errors(part, path.name, intact):
            yield part
            flush_file(part)
            os.replace(part, path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):  # a file system that became read-only keeps the part; the first error is the one to report
            part.unlink(missing_ok=True)


def process_tag() -> str:
    """A name of this process that is unique among all that write to the same folder: two hosts can have equal process ids."""
    return f"{socket.gethostname()}-{os.getpid()}"


def ensure_writable(folder: str | Path) -> Path:
    """`folder`, created if it is missing. Raises InputError when it cannot be written, StorageError when the disk is full."""
    folder = Path(folder)
    probe = folder / f".probe.{process_tag()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        if known := find_storage_error(error, folder):
            raise known from error
        raise InputError(f"cannot write in {folder}: {error.strerror}; choose a folder that you may write to") from error
    return folder


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` durable: the folder itself must be flushed to disk too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | Path, value: object) -> None:
    """Writes `value` as indented JSON, atomically. Raises ValueError for NaN, which is not JSON."""
    with prepared_json(path, value):
        pass


@contextmanager
def prepared_json(path: str | Path, value: object, private: bool = False) -> Iterator[None]:
    """As `write_json`, with a block in between: the file is on the disk before the block, and gets its name after it."""
    with prepared_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n", private):
        yield


@contextmanager
def prepared_text(path: str | Path, text: str, private: bool = False) -> Iterator[None]:
    """Writes the text file that describes another one, which the block writes: on the disk before the block, named after it.

    A disk that becomes full in between leaves both as they were."""
    with atomic_write(path, private) as part:
        part.write_text(text, encoding="utf-8")
        flush_file(part)
        yield


def flush_file(path: Path) -> None:
    """Makes the contents of a file durable. Some file systems say only now that the disk is full."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def read_json(path: str | Path) -> Any:
    """The value in a JSON file. Raises InputError when the file is missing, cannot be read or is not JSON."""
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not JSON, no text, a number with too many digits; lists nested too deep
        raise InputError(f"{path} is not JSON: {describe_reason(error)}") from error
