"""Changes of columns of a store on purpose, for tests of unusual stores."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from encoders.store.metadata_digest import DIGEST_ATTRIBUTE


@contextmanager
def edit_store(path: str | Path) -> Iterator[h5py.File]:
    """Opens a store to change its attributes and columns; it then has no digest of them, as those of earlier versions."""
    with h5py.File(path, "r+") as file:
        file.attrs.pop(DIGEST_ATTRIBUTE, None)
        yield file
