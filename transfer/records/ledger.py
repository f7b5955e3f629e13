"""The ledger: one JSON line for every scoring of a test part, in `records/ledger.jsonl`.

A line holds the identity of the record, the digest of its selection, the digest of its test images and the time.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from encoders.runtime.errors import InputError
from encoders.runtime.json_types import Json
from encoders.runtime.paths import records_dir
from encoders.runtime.sealed_json import DIGEST_KEY, SEAL_DIGITS, digest_plain_json, remove_digest
from encoders.runtime.storage_errors import find_storage_error
from transfer.records.record import Identity

OLDER_KEYS = {*Identity.model_fields, "selection", "test_set", "time"}  # of lines of earlier versions, which have no digest
LEDGER_NAME = "ledger.jsonl"


def ledger_path() -> Path:
    """The ledger of this working folder."""
    return records_dir() / LEDGER_NAME


def append_to_ledger(entry: Mapping[str, Json], path: Path) -> None:
    """Appends one line to the ledger and flushes it to disk. Several threads, processes and hosts may write at the same time.

    Raises InputError when the line cannot be written whole, StorageError when the disk is full or read-only."""
    sealed = {**entry, DIGEST_KEY: digest_plain_json(entry, SEAL_DIGITS)}
    line = json.dumps(sealed, sort_keys=True, allow_nan=False).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            # O_APPEND alone suffices on a local disk. On NFS two hosts can write at the same offset, so the file is locked as well; a
            # file system without locks (ENOLCK, EOPNOTSUPP) has O_APPEND only. Closing the file releases the lock.
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
            # After a crash the last line may be incomplete. The new one must not be joined to it, as both would be lost.
            size = os.fstat(handle).st_size
            line = line if size == 0 or os.pread(handle, 1, size - 1) == b"\n" else b"\n" + line
            if os.write(handle, line) < len(line):
                raise InputError(f"the ledger {path} was not written completely: is the disk full? No test split may be scored without it")
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if known := find_storage_error(error, path, "the use of the test split", "no test split may be scored without it"):
            raise known from error
        raise InputError(f"cannot write the ledger {path}: {error.strerror}; without it no test split may be scored") from error


def read_ledger(path: Path | None = None) -> list[dict[str, Json]]:
    """All complete lines of the ledger, oldest first."""
    return read_ledger_lines(path or ledger_path())[0]


def read_ledger_lines(path: Path) -> tuple[list[dict[str, Json]], int]:
    """All complete lines of the ledger, oldest first, and the number of lines that cannot be read (incomplete after a crash)."""
    entries, unreadable = [], 0
    try:
        text = path.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise InputError(f"cannot read the ledger {path}: {error.strerror}; uses of the test sets are counted from it") from error
    for line in filter(str.strip, text.split("\n")):
        entry = _parse_line(line)
        if entry is None:
            unreadable += 1
        else:
            entries.append(entry)
    return entries, unreadable


def _parse_line(line: str) -> dict[str, Json] | None:
    """The entry of a line without its digest; None for one that is no JSON object or was changed. Older lines have no digest."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    if (intact := remove_digest(entry)) is None:
        intact = {"task", "encoder"} <= set(entry) <= OLDER_KEYS  # a line whose word `digest` was damaged has another key
    return entry if intact else None
