"""Damage that a decoder or a checksum reports: the item is quarantined, or with --accept-damaged stored as it is decoded, and counted.

A damaged image that is stored has the words of the decoder in the column `damage`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from encoders.ingest.source import Remark, Unreadable
from encoders.runtime.errors import InputError
from encoders.runtime.read_errors import READ_ERRORS, describe_reason
from encoders.runtime.storage_errors import StorageError

DAMAGE_ACCEPTED = "damaged, and stored as decoded (--accept-damaged)"
DAMAGE_COLUMN = "damage"


def report_damage(words: str, accepted: bool, decodable: bool = True) -> Remark:
    """The remark on a damaged image that is stored.  decodable: whether anything of it can be decoded.

    Raises Unreadable with the words of the decoder unless damage is accepted and the image is decodable."""
    if not decodable:
        raise Unreadable(f"is broken: {words}")
    if not accepted:
        raise Unreadable(f"is broken: {words}; pass --accept-damaged to store it as it is decoded")
    return Remark(DAMAGE_ACCEPTED, words)


@contextmanager
def refuse_damaged_file(path: Path, kind: str) -> Iterator[None]:
    """Raises InputError for any error inside the block that a damaged file causes.  kind: what the file should be, e.g. `HDF5 file`.

    What is no matter of this file passes: a sentence that is one already, a reason to quarantine an item, a full disk."""
    try:
        yield
    except (InputError, Unreadable, StorageError):
        raise
    except READ_ERRORS as error:
        raise InputError(f"{path} is a damaged {kind}: {describe_reason(error)}; copy or download it again") from error
