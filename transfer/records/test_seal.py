"""The seal of a test split, and the ledger of every use of one.

A protocol receives no test row before its selection is frozen. Every use is logged, because comparing many checkpoints on a sealed test
split is also a form of selection.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from encoders.runtime.config import json_digest
from encoders.runtime.errors import InputError
from encoders.runtime.json_types import Json
from encoders.runtime.paths import records_dir
from transfer.records.record import to_plain_json

T = TypeVar("T")


class SealedError(RuntimeError):
    """The test split was requested before the selection was frozen, or with another selection."""


class HasSelection(Protocol):
    """The part of a fitted protocol that the seal uses. selection: empty when nothing has been chosen."""

    @property
    def selection(self) -> Mapping[str, object]: ...


class Seal(Generic[T]):
    """Holds a test split until the selection is frozen.

    `freeze(fitted)` freezes the selection; `open(fitted)` writes a line to the ledger, then returns the test split for exactly that fit.
    identity: of the record, for the ledger."""

    def __init__(self, test: T, identity: Mapping[str, Json], ledger: Path | None = None):
        self.__test = test
        self.identity, self.ledger = dict(identity), ledger or ledger_path()
        self.frozen: tuple[int, str] | None = None

    def freeze(self, fitted: HasSelection) -> str:
        """The digest of the selection. From now on, only this fit with this selection opens the seal.

        Raises SealedError when a selection is frozen already, or nothing has been chosen."""
        if self.frozen is not None:
            raise SealedError("sealed: a selection is frozen already; a second selection needs its own seal")
        if not fitted.selection:
            raise SealedError("sealed: the fit has chosen nothing yet (its `selection` is empty)")
        self.frozen = id(fitted), json_digest(to_plain_json(fitted.selection))
        return self.frozen[1]

    def open(self, fitted: HasSelection) -> T:
        """The test split. Raises SealedError unless `fitted` is the frozen fit with an unchanged selection."""
        if self.frozen is None:
            raise SealedError("sealed: the test split cannot be scored before the selection is frozen")
        if self.frozen != (id(fitted), json_digest(to_plain_json(fitted.selection))):
            raise SealedError("sealed: this is not the selection that was frozen")
        append_to_ledger({**self.identity, "selection": self.frozen[1], "time": round(time.time(), 1)}, self.ledger)
        return self.__test


@dataclass(frozen=True)
class SplitUsage:
    """How often a test split was scored, and by which encoders and protocols."""

    times: int
    encoders: tuple[str, ...]
    protocols: tuple[str, ...]

    def __str__(self) -> str:
        by = f" ({len(self.encoders)} encoders, {len(self.protocols)} protocols)" if self.times > 1 else ""
        return f"scored {self.times} time{'s' if self.times != 1 else ''}{by}"


def ledger_path() -> Path:
    """The ledger of this working folder."""
    return records_dir() / "ledger.jsonl"


def append_to_ledger(entry: Mapping[str, Json], path: Path) -> None:
    """Appends one line to the ledger and flushes it to disk. Several processes may write at the same time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A single write to a file opened for appending is not interleaved with writes of other processes.
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"cannot write the ledger {path}: {error.strerror}; without it no test split may be scored") from error
    try:
        os.write(handle, (json.dumps(entry, sort_keys=True, allow_nan=False) + "\n").encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def read_ledger(path: Path | None = None) -> list[dict[str, Json]]:
    """All complete lines of the ledger, oldest first."""
    path = path or ledger_path()
    entries = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            entries.append(json.loads(text))
        except json.JSONDecodeError:  # an incomplete line after a crash: the test split was not used
            continue
    return entries


def count_split_usage(split: str, path: Path | None = None, ledger: Sequence[Mapping[str, Json]] | None = None) -> SplitUsage:
    """How often the test part of `split` (its hash) was scored. ledger: its entries, when they have been read already."""
    uses = [line for line in (read_ledger(path) if ledger is None else ledger) if line.get("split") == split]
    return SplitUsage(
        len(uses),
        tuple(sorted({str(line.get("encoder")) for line in uses})),
        tuple(sorted({f"{line.get('protocol')}:{line.get('protocol_hash')}" for line in uses})),
    )
