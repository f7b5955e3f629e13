"""A digest of everything in a store file but the pixels: its attributes and columns, with labels and patients, and its masks.

It is written with the file and computed again when the store is verified, so that a changed label is noticed as a changed pixel is.
"""

import hashlib

import h5py
import numpy as np

DIGEST_ATTRIBUTE = "metadata_sha256"  # of the root; missing in stores of earlier versions
GROUPS = ("index", "meta", "labels")
MASKS = "masks"  # (N, H, W) uint8 of 0 and 1, where the finding of each image is; few stores have them


def digest_metadata(file: h5py.File) -> str:
    """64 hex digits: the SHA-256 of the root attributes, of each column with its attributes, in sorted order, and of the masks."""
    digest = hashlib.sha256()
    update_attributes(digest, file)
    for group in (name for name in GROUPS if name in file):
        names: list[str] = []
        file[group].visititems(lambda name, item, names=names: names.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in sorted(names):
            data = file[group][name]
            digest.update(f"{group}/{name} {data.dtype.str} {data.shape} ".encode())
            update_attributes(digest, data)
            values = data[:]
            digest.update(repr(values.tolist()).encode() if values.dtype.hasobject else np.ascontiguousarray(values).tobytes())
    if MASKS in file:
        data = file[MASKS]
        digest.update(f"{MASKS} {data.dtype.str} {data.shape} ".encode())
        for mask in data:
            digest.update(mask.tobytes())
    return digest.hexdigest()


def update_attributes(digest: "hashlib._Hash", item: h5py.File | h5py.Dataset) -> None:
    """Adds the attributes of an object to a digest."""
    for name, value in sorted(item.attrs.items()):
        if name != DIGEST_ATTRIBUTE:
            plain = value.item() if isinstance(value, np.generic) else value
            digest.update(f"{name}={plain!r};".encode())
