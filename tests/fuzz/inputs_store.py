"""Stores: changed bytes, and changes by HDF5 itself, of raw and JPEG stores. Read as a benchmark does: verified, then every value."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from encoders.store.store import Store
from encoders.store.verified import require_intact
from encoders.store.write import save_store, write_jpeg_store
from tests.fuzz.harness import FuzzClass, require_equal

LABELS = {"y": [0, 1, 0, 1, 0, 1], "t": ["a", "b", "a", "b", "", "a"]}


class StoreBytes(FuzzClass):
    """A store whose bytes were changed."""

    def __init__(self, codec: str):
        self.codec, self.name = codec, f"store, {codec}, bytes"

    def prepare(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (6, 16, 18, 1), dtype=np.uint8)
        path = folder / "a.h5"
        save_store(path, images, labels=LABELS, meta={"age": [1, 2, 3, 4, 5, None]})
        if self.codec == "jpeg":
            raw = Store.open(path)
            index = {name: raw.column(name) for name in ("key", "patient", "sha256")}
            blobs = [encode_jpeg(image) for image in images]
            write_jpeg_store(path, blobs, [len(blob) for blob in blobs], raw.attrs | {"codec": "jpeg"}, index)
        self.truth = read_all(path)

    def check(self, folder: Path) -> None:
        for name, value in read_all(folder / "a.h5").items():
            require_equal(value, self.truth[name], name)


def encode_jpeg(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.kron(image[..., 0][:4, :4], np.ones((6, 6), np.uint8))).save(out, "JPEG")
    return out.getvalue()


def read_all(path: Path) -> dict[str, Any]:
    """Everything that a store file says, after its verification."""
    store = Store.open(path)
    require_intact(store, range(len(store)))
    columns = store.columns()
    return {
        "columns": columns,
        "labels": store.label_names(),
        "attributes": [store.modality, store.dataset, store.channels, str(store.dtype), store.fingerprint],
        "images": [store.image(i).copy() for i in range(len(store))],
        "units": store.unit_images(range(len(store))),
        **{f"column {name}": store.column(name) for name in columns},
        **{f"label {name}": store.labels(name) for name in store.label_names()},
        **{f"classes {name}": store.classes(name) or [] for name in store.label_names()},
        "unknown": [store.unknown_texts(name) for name in columns],
    }


CLASSES = [StoreBytes("raw"), StoreBytes("jpeg")]
