"""The seal on a test split, and the ledger of every time that one was scored.

Nothing reads a test split's labels or features before the selection is frozen; and every look is written down, because comparing forty
checkpoints on a sealed test is still selection.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from encoders.runtime.config import json_digest
from encoders.runtime.errors import InputError
from encoders.runtime.paths import records_dir
from transfer.records.record import to_plain_json

T = TypeVar("T")


class SealedError(RuntimeError):
    """Somebody wanted the test split too early."""


class Seal(Generic[T]):
    """Holds a test split until the choice is made.

    `freeze(fitted)` fixes the selection; `open(fitted)` writes a line to the ledger, then gives the test split for exactly that fit."""

    def __init__(self, test: T, about: Mapping[str, Any], ledger: Path | None = None):
        self.__test = test
        self.about, self.ledger = dict(about), ledger or ledger_path()
        self.frozen: tuple[int, str] | None = None

    def freeze(self, fitted: Any) -> str:
        """The digest of the selection; from now on only this fit with this selection opens the seal. Freezing twice raises."""
        if self.frozen is not None:
            raise SealedError("sealed: a selection is frozen already; a second choice needs a seal of its own")
        if not fitted.selection:
            raise SealedError("sealed: the fit has chosen nothing yet (its `selection` is empty)")
        self.frozen = id(fitted), json_digest(to_plain_json(fitted.selection))
        return self.frozen[1]

    def open(self, fitted: Any) -> T:
        """The test split. Raises SealedError unless `fitted` is what was frozen, with its selection unchanged."""
        if self.frozen is None:
            raise SealedError("sealed: the test split cannot be scored before the selection is frozen")
        if self.frozen != (id(fitted), json_digest(to_plain_json(fitted.selection))):
            raise SealedError("sealed: this is not the selection that was frozen")
        append_to_ledger({**self.about, "selection": self.frozen[1], "time": round(time.time(), 1)}, self.ledger)
        return self.__test


@dataclass(frozen=True)
class SplitUsage:
    """How often a test split was scored, and by what."""

    times: int
    encoders: tuple[str, ...]
    protocols: tuple[str, ...]

    def __str__(self) -> str:
        by = f" ({len(self.encoders)} encoders, {len(self.protocols)} protocols)" if self.times > 1 else ""
        return f"scored {self.times} time{'s' if self.times != 1 else ''}{by}"


def ledger_path() -> Path:
    """The ledger of this working folder."""
    return records_dir() / "ledger.jsonl"


def append_to_ledger(line: Mapping[str, Any], path: Path) -> None:
    """Appends one line to the ledger, on disk before this returns; several processes may write at once."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One write of one line to a file opened for appending is not interleaved with others'.
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError as wrong:
        raise InputError(f"cannot write the ledger {path}: {wrong.strerror}; without it no test split may be scored") from wrong
    try:
        os.write(handle, (json.dumps(line, sort_keys=True, allow_nan=False) + "\n").encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def read_ledger(path: Path | None = None) -> list[dict[str, Any]]:
    """All whole lines of the ledger, oldest first."""
    path = path or ledger_path()
    found = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(text))
        except json.JSONDecodeError:  # a line torn by a crash: the look it announced did not happen
            continue
    return found


def count_split_usage(split: str, path: Path | None = None, known: list[dict[str, Any]] | None = None) -> SplitUsage:
    """How often the test part of `split` (its hash) was scored."""
    mine = [line for line in (read_ledger(path) if known is None else known) if line.get("split") == split]
    return SplitUsage(
        len(mine),
        tuple(sorted({str(line.get("encoder")) for line in mine})),
        tuple(sorted({f"{line.get('protocol')}:{line.get('protocol_hash')}" for line in mine})),
    )
