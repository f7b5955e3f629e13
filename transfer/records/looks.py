"""All known scorings of test parts: the lines of the ledgers, and the records that no line describes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from json import dumps
from pathlib import Path

from pydantic import ValidationError

from encoders.runtime.errors import InputError
from encoders.runtime.files import read_json
from encoders.runtime.json_types import Json
from encoders.runtime.paths import records_dir
from encoders.runtime.sealed_json import remove_digest
from transfer.records.ledger import LEDGER_NAME, read_ledger_lines
from transfer.records.record import RECORD_DIGITS, RECORD_FORMAT, Identity, Record, find_records

LATEST_TIME = 1e11  # s since 1970; larger numbers are no times


@dataclass(frozen=True)
class Look:
    """One scoring of a test part.

    record: id of its record; "" if the line does not determine it.  test_set: digest of the images; "" in lines and records of earlier
    versions, where the images are known by the hash of their split alone.  time: Unix time, 0 if unknown."""

    record: str
    split: str
    test_set: str
    encoder: str
    encoder_sha256: str
    protocol: str
    protocol_hash: str
    time: float = 0.0
    in_ledger: bool = True


@dataclass(frozen=True)
class LookLog:
    """looks: all scorings that are known.  folders: where ledgers and test sets are.  unreadable: lines of ledgers that cannot be read."""

    looks: tuple[Look, ...]
    folders: tuple[Path, ...]
    unreadable: int = 0


def gather_looks(records: Sequence[Record], paths: Sequence[Path] = ()) -> LookLog:
    """The scorings in the ledgers and in all records of the working folder, and those of `records`, each once.

    paths: files of records; ledgers in their folders or in the folders above are read too."""
    beside = [folder for path in paths for folder in list(path.resolve().parents)[:2]]
    folders = [f for f in dict.fromkeys([records_dir().resolve(), *beside]) if (f / LEDGER_NAME).is_file() or f == records_dir().resolve()]
    looks: dict[str, Look] = {}  # a line that was copied to another ledger is the same scoring
    unreadable = 0
    for folder in folders:
        entries, wrong = read_ledger_lines(folder / LEDGER_NAME)
        unreadable += wrong
        looks |= {dumps(entry, sort_keys=True): _look_of_entry(entry) for entry in entries}
    logged = {look.record for look in looks.values()}
    unlogged = {
        look.record: look for look in [*_list_stored_records(), *map(look_of_record, records)] if look and look.record not in logged
    }
    return LookLog((*looks.values(), *unlogged.values()), tuple(folders), unreadable)


def look_of_record(record: Record) -> Look | None:
    """The scoring that a record proves; None for a failed one, whose test part may not have been scored."""
    if record.meta.status != "ok":
        return None
    entry = {**record.identity.model_dump(mode="json"), "test_set": record.meta.test_set}
    return _look_of_entry(entry, in_ledger=False)


def _list_stored_records() -> list[Look]:
    """The scorings of all records of the working folder. Only their JSON is read, which takes about a millisecond each.

    A file that was edited or cannot be read proves nothing; the commands that use it report it."""
    looks = []
    for path in find_records():
        try:
            content = read_json(path)
        except (InputError, OSError):
            continue
        if not isinstance(content, dict) or content.get("format") != RECORD_FORMAT or content.get("status") != "ok":
            continue
        if remove_digest(content, RECORD_DIGITS):
            looks.append(_look_of_entry({**content["identity"], "test_set": content.get("test_set", "")}, in_ledger=False))
    return looks


def _look_of_entry(entry: Mapping[str, Json], in_ledger: bool = True) -> Look:
    def text(name: str) -> str:
        return str(entry.get(name) or "")

    time = entry.get("time")
    return Look(
        record=record_id_of_entry(entry),
        split=text("split"),
        test_set=text("test_set"),
        encoder=text("encoder"),
        encoder_sha256=text("encoder_sha256"),
        protocol=text("protocol"),
        protocol_hash=text("protocol_hash"),
        time=float(time) if isinstance(time, int | float) and abs(time) < LATEST_TIME else 0.0,
        in_ledger=in_ledger,
    )


def record_id_of_entry(entry: Mapping[str, Json]) -> str:
    """The id of the record of a ledger line, from the fields of its identity; "" if the line lacks one."""
    try:
        return Identity.model_validate({name: entry[name] for name in Identity.model_fields if name in entry}).id
    except ValidationError:
        return ""
