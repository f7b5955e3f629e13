"""The ledger of validation looks: one JSON line for every training that validates, in `records/validation_ledger.jsonl`.

A validation look is one scoring of the validation part to choose something. A search makes many times as many as a training with given
settings, and its trials are in no record of their own, so that each has a line when it ends or pauses, also in a search that is never
finished. Trainings of records without a line, such as those of earlier versions, are counted from the cost in their records.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from json import dumps
from pathlib import Path

from encoders.runtime.config import json_digest
from encoders.runtime.json_types import Json
from encoders.runtime.paths import records_dir
from transfer.records.ledger import append_to_ledger, read_ledger_lines
from transfer.records.looks import record_id_of_entry
from transfer.records.record import Record

VALIDATION_LEDGER = "validation_ledger.jsonl"
OWN_KEYS = ("looks", "images", "time", "trial", "rung")  # of a line, besides what the training is for


@dataclass(frozen=True)
class ValidationLook:
    """The validations of a training, or of a part of it. record: id of its record, or what else tells it from others.

    trial: of a search; None without one."""

    record: str
    split: str
    looks: int
    trial: int | None = None


@dataclass(frozen=True)
class ValidationUse:
    """How often validation parts were scored to choose weights or settings. trainings: that did so, each trial of a search counted."""

    looks: int = 0
    trainings: int = 0

    def __add__(self, other: "ValidationUse") -> "ValidationUse":
        return ValidationUse(self.looks + other.looks, self.trainings + other.trainings)

    def __str__(self) -> str:
        trainings = f"{self.trainings:,} training{'' if self.trainings == 1 else 's'}"
        return f"validation patients were scored {self.looks:,} times by {trainings}, to choose weights and settings"


NO_VALIDATION = ValidationUse()


def log_validation_looks(
    identity: Mapping[str, Json], looks: int, trial: int | None = None, rung: int | None = None, images: int = 0
) -> None:
    """Adds a line. identity: of the record that the training is for, or of another training on a split.  trial, rung: of a search.

    images: that were trained on."""
    entry: dict[str, Json] = {**identity, "looks": looks, "images": images, "time": round(time.time(), 1)}
    if trial is not None:
        entry |= {"trial": trial, "rung": rung}
    append_to_ledger(entry, records_dir() / VALIDATION_LEDGER)


def gather_validation_looks(records: Sequence[Record], folders: Iterable[Path]) -> list[ValidationLook]:
    """The lines of the ledgers in these folders, each once, and the trainings of `records` that no line describes."""
    lines: dict[str, ValidationLook] = {}
    for folder in folders:
        for entry in read_ledger_lines(folder / VALIDATION_LEDGER)[0]:
            lines[dumps(entry, sort_keys=True)] = _read_line(entry)
    logged = {look.record for look in lines.values()}
    unlogged = {r.identity.id: look for r in records if r.identity.id not in logged and (look := look_of_cost(r)) is not None}
    return [*lines.values(), *unlogged.values()]


def look_of_cost(record: Record) -> ValidationLook | None:
    """The validations that the cost of a record states; None without any. Shifted test images share the training of unchanged ones."""
    looks = record.meta.cost.get("validations")
    if not isinstance(looks, int) or not looks or record.identity.shift is not None:
        return None
    return ValidationLook(record.identity.id, record.identity.split, looks)


def count_validation_use(looks: Iterable[ValidationLook]) -> dict[str, ValidationUse]:
    """Hash of a split -> the use of its validation part."""
    uses: dict[str, ValidationUse] = {}
    trials: dict[str, set[tuple[str, int]]] = {}
    for look in looks:
        known = trials.setdefault(look.split, set())
        is_new = look.trial is None or (look.record, look.trial) not in known  # a trial has a line for each rung
        if look.trial is not None:
            known.add((look.record, look.trial))
        uses[look.split] = uses.get(look.split, NO_VALIDATION) + ValidationUse(look.looks, int(is_new))
    return uses


def _read_line(entry: Mapping[str, Json]) -> ValidationLook:
    looks, trial = entry.get("looks"), entry.get("trial")
    return ValidationLook(
        record_id_of_entry(entry) or json_digest({name: value for name, value in entry.items() if name not in OWN_KEYS}),
        str(entry.get("split") or ""),
        looks if isinstance(looks, int) else 0,
        trial if isinstance(trial, int) else None,
    )
