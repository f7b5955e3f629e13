"""Where the training of a cell keeps its state until its record is written, and what its validations leave in the ledger."""

import hashlib
from collections.abc import Callable

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.config import json_digest
from encoders.runtime.paths import cache_dir
from transfer.bench.cell import Cell
from transfer.protocols.contract import ResumableProtocol
from transfer.protocols.fit_place import FitPlace, TrialReport
from transfer.records.record import Record, library_versions
from transfer.records.validation_looks import log_validation_looks, look_of_cost

SHIFT_FIELDS = {"shift", "strength", "amount", "shift_version"}  # of the test images, which no training sees


def find_fit_place(cell: Cell, log: Callable[[str], None]) -> FitPlace | None:
    """The place of the fit of a cell. Its name depends on everything that the weights depend on, so that only an equal fit goes on from it.

    None for a protocol that computes too little to go on from the middle of it.

    log: receives a line for every trial of a search."""
    if not isinstance(cell.protocol, ResumableProtocol):
        return None
    rows = np.concatenate([cell.split.rows("train"), cell.split.rows("val")])
    identity = cell.identity.model_dump(mode="json", exclude=SHIFT_FIELDS)
    images = [_digest_column(column[rows]) for column in (cell.loaded.key, cell.loaded.patient, cell.loaded.sha256)]
    settings = [cell.protocol.VERSION, cell.cfg.model_dump(mode="json"), cell.device.partition(":")[0], library_versions()["torch"]]
    name = json_digest(["bench", identity, images, settings], 32)

    def hear(report: TrialReport) -> None:
        log_validation_looks(cell.identity.model_dump(mode="json"), report.looks, report.trial, report.rung, report.images)
        log(str(report))

    return FitPlace(cache_dir() / "trainings" / f"{name}.pt", hear)


def log_looks_of_training(record: Record) -> None:
    """Adds the validations of a new record to the ledger; a search has added those of its trials."""
    look = look_of_cost(record)
    if look is not None and "search" not in record.meta.selection:
        images = record.meta.cost.get("images_seen")
        log_validation_looks(record.identity.model_dump(mode="json"), look.looks, images=images if isinstance(images, int) else 0)


def _digest_column(column: Array) -> str:
    return hashlib.sha256("\n".join(map(str, column.tolist())).encode()).hexdigest()
