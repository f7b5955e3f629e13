"""Whether the pixels in a store file are those that were stored: each image has a hash, which is computed again from the bytes in the file.

Raw pixels have the column sha256. That of a JPEG store is of the pixels before encoding, so such a store has the hashes of the encoded
images as well, in /encoded_sha256; in stores of earlier versions, which have none, images are only decoded.

Shapes: N images.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from encoders.runtime.arrays import Array, IntArray
from encoders.runtime.errors import InputError
from encoders.similarity.perceptual_hash import pixel_sha256
from encoders.store.hdf5_errors import reading_hdf5
from encoders.store.metadata_digest import DIGEST_ATTRIBUTE, digest_metadata
from encoders.store.part import StorePart
from encoders.store.store import Store


class DamagedImage(NamedTuple):
    """An image whose bytes are not those that were stored."""

    row: int  # of the store
    key: str
    path: str
    reason: str


def find_damaged_images(store: Store, rows: Iterable[int]) -> Iterator[DamagedImage | None]:
    """For each of the rows, what is wrong with its pixels, or None."""
    expected: dict[int, Array] = {}
    for row in rows:
        part, i = store.locate(int(row))
        if id(part) not in expected:
            expected[id(part)] = stored_hashes(part)
        reason = describe_damaged_image(part, i, str(expected[id(part)][i]))
        yield DamagedImage(int(row), str(part.column("index", "key")[i]), str(part.path), reason) if reason else None


def stored_hashes(part: StorePart) -> Array:
    """(N,) hex text: the hash that the bytes of each image in the file must have; "" where the file states none."""
    if part.codec == "raw":
        return part.column("index", "sha256")
    digests = part.encoded_sha256()
    return np.full(len(part), "") if digests is None else np.array([bytes(row).hex() for row in digests])


def describe_damaged_image(part: StorePart, i: int, expected: str) -> str:
    """Why image `i` of a file is not the stored one; "" if it is.  expected: its hash from `stored_hashes`."""
    if part.codec == "raw":
        return "" if pixel_sha256(part.image(i)) == expected else "its pixels are not those that were stored"
    if expected:
        return "" if hashlib.sha256(part.encoded(i)).hexdigest() == expected else "its JPEG is not the one that was stored"
    try:
        part.image(i)
    except InputError:
        return "its JPEG cannot be decoded"
    return ""


def count_without_hash(store: Store) -> int:
    """The number of images that can only be decoded: those of JPEG stores of earlier versions."""
    return sum(len(part) for part in store.parts if part.codec != "raw" and part.encoded_sha256() is None)


def accept_metadata(path: Path) -> None:
    """Takes the attributes and columns of a store file as they are now for those that were written."""
    StorePart(path)  # it must be a store
    with reading_hdf5(path), h5py.File(path, "r+") as file:
        file.attrs[DIGEST_ATTRIBUTE] = digest_metadata(file)


def sample_rows(n: int, size: int) -> IntArray:
    """At most `size` different rows of N images, other ones in every call: damage is not always where it was last looked for."""
    return np.sort(np.random.default_rng().choice(n, min(size, n), replace=False))
