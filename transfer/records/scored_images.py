"""The images of a test set as 64-bit ids, stored once per distinct set beside the ledger.

An image has two ids: one of its pixels, which a renamed key, another task or another split does not change, and one of its key within its
task, which an ingest at another size does not change. Two sets share an image when either id is equal.

Shapes: M test images.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write
from encoders.runtime.read_errors import READ_ERRORS
from encoders.runtime.storage_errors import StorageError

# With 64 bits, any two of a million images have the same id by chance in 3 of 10^8 cases.
ID_BYTES = 8
ID_TYPE = np.dtype([("pixels", "<u8"), ("key", "<u8")])
TEST_SETS_FOLDER = "test_sets"  # beside the ledger
SHA256_DIGITS = 64


@dataclass(frozen=True, eq=False)
class ScoredImages:
    """ids: (M,) of `ID_TYPE`, sorted and unique."""

    ids: Array

    @cached_property
    def digest(self) -> str:
        """32 hex digits of the set, independent of the order of its images; the name of its file."""
        return hashlib.sha256(self.ids.tobytes()).hexdigest()[:32]


def identify_images(task: str, key: Sequence[object] | Array, sha256: Sequence[object] | Array) -> ScoredImages:
    """The set of these images of a task. key, sha256: (M,) as in the store.

    An image without the hash of its pixels is known by its key alone."""
    ids = np.empty(len(key), ID_TYPE)
    ids["key"] = _join_ids(hashlib.blake2b(f"{task}\n{k}".encode(), digest_size=ID_BYTES).digest() for k in key)
    digests = [str(s) for s in sha256]
    known = np.array([len(s) == SHA256_DIGITS for s in digests], dtype=bool)
    ids["pixels"] = ids["key"]
    ids["pixels"][known] = _join_ids(bytes.fromhex(s[: 2 * ID_BYTES]) for s in digests if len(s) == SHA256_DIGITS)
    ids = ids[np.lexsort((ids["key"], ids["pixels"]))]  # np.unique compares structures ten times as slowly
    return ScoredImages(ids[np.r_[True, ids[1:] != ids[:-1]][: len(ids)]])


def _join_ids(values: Iterable[bytes]) -> Array:
    return np.frombuffer(b"".join(values), dtype="<u8")


def write_scored_images(images: ScoredImages, ledger_folder: Path) -> None:
    """Stores the set in `test_sets/DIGEST.npy` of the ledger's folder unless it is there. Raises InputError if it cannot be written."""
    path = scored_images_path(images.digest, ledger_folder)
    if read_scored_images(images.digest, [ledger_folder]) is not None:
        return
    try:
        with atomic_write(path) as part, open(part, "wb") as file:
            np.save(file, images.ids, allow_pickle=False)
    except StorageError as error:
        raise error.about("the list of the test images", "no test split may be scored without it") from error
    except (OSError, InputError) as error:
        raise InputError(f"the images of the test set cannot be stored: {error}; without them no test split may be scored") from error


def read_scored_images(digest: str, ledger_folders: Iterable[Path]) -> ScoredImages | None:
    """The set with this digest from the first folder that has it intact; None when no folder has."""
    for folder in ledger_folders:
        try:
            ids = np.load(scored_images_path(digest, folder), allow_pickle=False)
        except READ_ERRORS:  # missing, or cut off while it was copied
            continue
        if not isinstance(ids, np.ndarray) or ids.dtype != ID_TYPE or ids.ndim != 1:
            continue
        images = ScoredImages(ids)
        if images.digest == digest:
            return images
    return None


def scored_images_path(digest: str, ledger_folder: Path) -> Path:
    """The file of a test set, whether or not it exists."""
    return ledger_folder / TEST_SETS_FOLDER / f"{digest}.npy"
