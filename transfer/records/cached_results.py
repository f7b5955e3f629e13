"""Results that were computed from records before, and are read from their statistics files instead of being computed again.

A result is known by its name, the digests of all records that it was computed from, and its settings. Records in memory alone have no
digest, so that their results are always computed.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from encoders.runtime.json_types import Json
from transfer.records.record import Record
from transfer.records.result_codec import DecodeError, decode_result, encode_result

T = TypeVar("T")


def cached_result(name: str, records: Sequence[Record], settings: Sequence[object], kind: object, compute: Callable[[], T]) -> T:
    """The value of `compute()`, from the statistics file of the first record if it is there.

    records: all that it is computed from, in order.  settings: everything else that it depends on; numbers, texts and arrays.
    kind: the annotation of its type.  The value is bit-identical whether it was read or computed."""
    file = records[0].statistics if records else None
    if file is None or not all(record.digest for record in records):
        return compute()
    key = f"{name} {_digest([[record.digest for record in records], encode_result(settings)])}"
    found, stored = file.get(key)
    if found:
        with suppress(DecodeError):
            known: T = decode_result(kind, stored)
            return known
    value = compute()
    file.put(key, encode_result(value))
    return value


def derived_digest(record: Record, *settings: object) -> str:
    """The digest of a record that is computed from another with these settings; "" if that one is in memory alone."""
    return _digest([record.digest, encode_result(settings)]) if record.digest else ""


def _digest(value: Json) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()[:32]
