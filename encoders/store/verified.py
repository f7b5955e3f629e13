"""A store is verified before the first number is computed from it: a random sample of its images, and the test images of a task.

What was verified is remembered for each file by path, size, times of change and inode, so an unchanged file is not read again. The time of
the last change to the inode is one of them, because it is kept by no tool that copies times, and by no clock that was set back.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from encoders.runtime.arrays import BoolArray, IntArray
from encoders.runtime.config import json_digest
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write
from encoders.runtime.local_notes import show_key
from encoders.runtime.paths import cache_dir
from encoders.store.content import find_damaged_images, sample_rows
from encoders.store.part import StorePart
from encoders.store.store import Store

VERIFIED_IMAGES = 512  # images of a file
VERSION = 2  # of what is checked, and of the file that remembers it
DIGEST_BYTES = 32  # SHA-256 of the bits of the images, in front of them


def require_intact(store: Store, rows: Iterable[int] = ()) -> int:
    """Verifies the images `rows`, and of each file at least `VERIFIED_IMAGES` random ones; returns how many were read now.

    Raises InputError with the key of the first image whose pixels are not those that were stored."""
    wanted = np.zeros(len(store), dtype=bool)
    wanted[np.asarray(list(rows), dtype=np.int64)] = True
    checked = 0
    for start, part in zip(store.starts[:-1].tolist(), store.parts, strict=True):
        done = read_verified(part)
        if not done.any():
            require_intact_metadata(part)
        needed = wanted[start : start + len(part)] & ~done
        if int((done | needed).sum()) < min(VERIFIED_IMAGES, len(part)):
            needed[sample_rows(len(part), VERIFIED_IMAGES)] = True
            needed &= ~done
        if needed.any():
            require_intact_rows(store, start + np.flatnonzero(needed))
            save_verified(part, done | needed)
            checked += int(needed.sum())
    return checked


def require_intact_metadata(part: StorePart) -> None:
    """Raises InputError when attributes or columns of a file are not those that were written."""
    if part.metadata_is_intact() is False:
        raise InputError(
            f"{part.path}: its attributes, labels or other columns are not those that were written. Copy the store again, or ingest again; "
            f"if you changed them on purpose, `encoders verify {part.path} --accept-columns` takes them as they are now"
        )


def require_intact_rows(store: Store, rows: IntArray) -> None:
    """Raises InputError for the first of the rows whose pixels are not those that were stored."""
    for damaged in find_damaged_images(store, rows.tolist()):
        if damaged is not None:
            raise InputError(
                f"{damaged.path}: the image {show_key(damaged.key)} was changed: {damaged.reason}. Copy the store again, or ingest again; "
                f"`encoders verify {damaged.path}` lists all such images"
            )


def verified_path(part: StorePart) -> Path:
    """The file that remembers which images of this version of a store file were verified."""
    path = part.path.resolve()
    facts = path.stat()
    identity = [str(path), facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino, part.fingerprint, VERSION]
    return cache_dir() / "verified" / f"{json_digest(identity, 32)}.bits"


def read_verified(part: StorePart) -> BoolArray:
    """(N,) whether each image was verified; none of them if the file that remembers it is missing or damaged."""
    try:
        data = verified_path(part).read_bytes()
    except OSError:
        return np.zeros(len(part), dtype=bool)
    digest, packed = data[:DIGEST_BYTES], np.frombuffer(data[DIGEST_BYTES:], np.uint8)
    if hashlib.sha256(packed.tobytes()).digest() != digest or len(packed) != -(-len(part) // 8):
        return np.zeros(len(part), dtype=bool)
    return np.unpackbits(packed, count=len(part)).astype(bool)


def save_verified(part: StorePart, done: BoolArray) -> None:
    """Remembers what was verified; a cache that cannot be written only means that it is verified again."""
    packed = np.packbits(done).tobytes()
    try:
        with atomic_write(verified_path(part)) as temporary:
            temporary.write_bytes(hashlib.sha256(packed).digest() + packed)
    except (OSError, InputError):
        pass
