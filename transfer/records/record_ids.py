"""The ids of images, patients and studies in records: pseudonyms, so that a record can be passed on without the names of its data set.

A pseudonym is a hash of the name. Whoever knows the names can compute it, unless the secret of a salt file enters it: pseudonyms are not
anonymity. Records of earlier versions hold the names themselves; a benchmark that finds one writes it again with pseudonyms.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.pseudonyms import read_salt
from encoders.runtime.unknown_values import find_unknown
from transfer.records.record import ID_COLUMNS, Record

ID_DIGITS = 16  # of 16: 64 bits, so that a million names have no two equal pseudonyms
ID_ARRAYS = tuple(f"{part}_{column}" for part in ("val", "test") for column in (*ID_COLUMNS, "study"))

_salt = ""  # of this process, see `use_salt_file`


def use_salt_file(path: Path | None) -> None:
    """Makes the pseudonyms of this process with the secret in a file; None: without one. Raises InputError if it cannot be read."""
    global _salt  # one command has one secret, and every record of it is written with it
    _salt = read_salt(path)


def hide_names(values: Array, salt: str | None = None) -> Array:
    """(N,) pseudonyms of names, text; unknown values stay as they are.  salt: by default that of this process."""
    secret = _salt if salt is None else salt
    names = np.asarray(values).astype(str)
    distinct, inverse = np.unique(names, return_inverse=True)
    hidden = [hashlib.sha256(f"{secret}isograft record:{name}".encode()).hexdigest()[:ID_DIGITS] for name in distinct.tolist()]
    unknown = find_unknown(distinct, names=True)
    found = np.array([name if none else h for name, h, none in zip(distinct.tolist(), hidden, unknown, strict=True)], dtype=str)
    return found[inverse] if len(names) else names


def salt_digits(salt: str | None = None) -> str:
    """Eight digits by which two records tell that their secrets differ; "" without a secret. They do not tell the secret."""
    secret = _salt if salt is None else salt
    return hashlib.sha256(f"isograft salt:{secret}".encode()).hexdigest()[:8] if secret else ""


def hide_record_ids(record: Record) -> Record:
    """The record with pseudonyms of this process instead of names."""
    arrays = {name: hide_names(record.arrays[name]) if name in ID_ARRAYS else record.arrays[name] for name in record.arrays}
    return replace(record, meta=record.meta.model_copy(update=describe_own_ids()), arrays=arrays)


def describe_own_ids() -> dict[str, str]:
    """The fields of a record's JSON that say how this process makes pseudonyms."""
    return {"ids": "salted" if _salt else "pseudonyms", "salt": salt_digits()}


def write_as_in(record: Record, values: Array) -> Array:
    """(N,) names as this record writes them, text: to find its rows in a store.

    Raises InputError if the secret with which they were written is needed and was not given."""
    if record.meta.ids == "names":
        return np.asarray(values).astype(str)
    if record.meta.ids == "pseudonyms":
        return hide_names(values, "")
    if record.meta.salt != salt_digits():
        raise InputError(
            f"the records of task {record.identity.task!r} hold pseudonyms that were made with a secret, and "
            + ("--salt-file names another one" if _salt else "none was given")
            + "; pass --salt-file with the file of that benchmark, or run `transfer bench` with --again"
        )
    return hide_names(values)


def has_own_ids(record: Record) -> bool:
    """Whether the record holds pseudonyms as this process makes them."""
    return {"ids": record.meta.ids, "salt": record.meta.salt} == describe_own_ids()
