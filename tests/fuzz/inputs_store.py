"""Stores: changed bytes, and changes by HDF5 itself, of raw and JPEG stores. Read as a benchmark does: verified, then every value."""

import io
import json
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
from PIL import Image

from encoders.store.metadata_digest import DIGEST_ATTRIBUTE
from encoders.store.store import Store
from encoders.store.verified import require_intact
from encoders.store.write import save_store, write_jpeg_store
from tests.fuzz.harness import FuzzClass, require_equal
from tests.fuzz.mutators import ODD_VALUES

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


class StoreStructure(StoreBytes):
    """A store that was changed with HDF5: attributes, columns and pixels of another type, shape, length or storage, or left out.

    A store of an earlier version has no digest of its columns, so a changed label of another value is what it says; its pixels are not."""

    def __init__(self, with_digest: bool):
        super().__init__("raw")
        self.with_digest, self.name = with_digest, f"store, {'structure' if with_digest else 'of an earlier version, structure'}"

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        if not self.with_digest:
            with h5py.File(folder / "a.h5", "r+") as file:
                del file.attrs[DIGEST_ATTRIBUTE]

    def mutate(self, folder: Path, rng: Random) -> str:
        with h5py.File(folder / "a.h5", "r+") as file:
            names: list[str] = []
            file.visit(names.append)
            where = rng.choice(names)
            match rng.randrange(5):
                case 0 | 1:
                    return change_attribute(rng.choice([file, file, file, file[where]]), rng)
                case 2:
                    del file[where]
                    return f"{where} left out"
                case 3:
                    new = rng.choice(["labels/z", "index/z", "meta/a/b", "images2", "labels/\u202e"])
                    file.move(where, new)
                    return f"{where} moved to {new}"
                case _:
                    return replace_data(file, where, rng)

    def check(self, folder: Path) -> None:
        found = read_all(folder / "a.h5")
        require_equal(found["images"], self.truth["images"], "images")
        if self.with_digest:
            for name, value in found.items():
                require_equal(value, self.truth[name], name)


def change_attribute(item: h5py.File | h5py.Dataset, rng: Random) -> str:
    """Sets an attribute to an odd value, in JSON where it was so, or leaves it out."""
    name = rng.choice([*item.attrs, "classes", "unknown"])
    odd = rng.choice(ODD_VALUES)
    if name in item.attrs and rng.random() < 0.2:
        del item.attrs[name]
        return f"{item.name}.{name} left out"
    try:
        item.attrs[name] = odd if rng.random() < 0.5 else json.dumps(odd)
    except (TypeError, ValueError, OverflowError):
        item.attrs[name] = json.dumps(odd)[:99]
    return f"{item.name}.{name} is {odd!r}"[:80]


def replace_data(file: h5py.File, where: str, rng: Random) -> str:
    """Replaces a dataset or group by a dataset of another shape, type or storage."""
    old = file[where][()] if isinstance(file[where], h5py.Dataset) else np.zeros(6)
    attrs = dict(file[where].attrs)
    del file[where]
    shape = rng.choice([(), (0,), (5,), (6,), (7,), (6, 2), old.shape, old.shape, (6, 16, 18, 1)])
    if rng.random() < 0.2:
        data = file.create_dataset(where, (2**40,), "f4", chunks=(1024,))
    elif old.dtype.hasobject and rng.random() < 0.5:
        texts = rng.choice(["", "nan", "é", "x" * 70000, "../a", "\x1b[31m"])
        data = file.create_dataset(where, old.shape, old.dtype, data=np.full(old.shape, texts, object))
    else:
        kind = rng.choice(["u1", "i8", "f4", "f8", "S4", "?", "c8", "u2"])
        values = np.resize(old if old.dtype.kind in "biuf" else np.arange(6), shape).astype(kind)
        options = rng.choice([{}, {"compression": "gzip"}, {"fletcher32": True}]) if values.size and values.ndim else {}
        data = file.create_dataset(where, data=values, **options)
    data.attrs.update(attrs)
    return f"{where} is {data.shape} of {data.dtype}"


CLASSES = [StoreBytes("raw"), StoreBytes("jpeg"), StoreStructure(True), StoreStructure(False)]
