"""The seal of a test split: a protocol receives no test row before its selection is frozen.

Every use is logged in the ledger, because comparing many checkpoints on a sealed test split is also a form of selection.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from encoders.runtime.config import json_digest
from encoders.runtime.json_types import Json
from transfer.records.ledger import append_to_ledger, ledger_path
from transfer.records.record import to_plain_json
from transfer.records.scored_images import ScoredImages, write_scored_images

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
    images: of the test split, whose uses are counted.  identity: of the record, for the ledger."""

    def __init__(self, test: T, images: ScoredImages, identity: Mapping[str, Json], ledger: Path | None = None):
        self.__test = test
        self.images, self.identity, self.ledger = images, dict(identity), ledger or ledger_path()
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
        # The line refers to the set, so the set is written first: a crash in between leaves a set without a line.
        write_scored_images(self.images, self.ledger.parent)
        entry = {**self.identity, "selection": self.frozen[1], "test_set": self.images.digest, "time": round(time.time(), 1)}
        append_to_ledger(entry, self.ledger)
        return self.__test
