"""`encoders ingest hdf5`: arrays whose bytes, or whose datasets and attributes, were changed. The truth is what h5py reads from the file.

HDF5 has checksums only where a file asks for them (fletcher32), so changed bytes of others are what the file says.
"""

import math
import re
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import h5py
import numpy as np

from encoders.ingest.hdf5 import Hdf5Source
from tests.fuzz.harness import FuzzClass, SilentlyWrong
from tests.fuzz.ingested import Stored, ingest_all, require_stored
from tests.fuzz.mutators import ODD_VALUES, mutate_file

N, SIDE = 6, 8
KEYS = ("x", "y", "wsi", "coords")
SHAPES: list[tuple[int, ...]] = [
    (),
    (0,),
    (1,),
    (N,),
    (N + 1, SIDE, SIDE, 3),
    (N, SIDE, SIDE),
    (N, SIDE),
    (N, 0, SIDE, 3),
    (N, 3, SIDE, SIDE),
]
SHAPES += [(N, SIDE, SIDE, 2), (2, 3, 3, 3), (1,) * 32]
DTYPES = ["u1", ">u2", "i1", "i4", "f2", "f4", "f8", "c8", "?", "S3", "O", "V5", [("a", "u1"), ("b", "f4")]]


class ArraysInHdf5(FuzzClass):
    """A file as PCam publishes it, with patients and coordinates, whose bytes were changed."""

    name = "ingest hdf5, bytes"
    checked: ClassVar[dict[str, Any]] = {}  # filters of the images

    def prepare(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        with h5py.File(folder / "a.h5", "w") as file:
            file.create_dataset(
                "x", data=rng.integers(0, 256, (N, SIDE, SIDE, 3), dtype=np.uint8), chunks=(2, SIDE, SIDE, 3), **self.checked
            )
            file["y"] = np.array([0, 1, 0, 1, 1, 0], np.uint8)[:, None, None, None]
            file["wsi"] = np.array([b"s1", b"s1", b"s2", b"s2", b"s3", b"s3"])
            file["coords"] = rng.integers(0, 9999, (N, 2))
            file["coords"].attrs.update({"patch_size": SIDE, "patch_level": 0})

    def mutate(self, folder: Path, rng: Random) -> str:
        return mutate_file(folder / "a.h5", rng)

    def check(self, folder: Path) -> None:
        path = folder / "a.h5"
        options = {"coords": "coords"} if len(folder.name) % 2 else {}
        source = Hdf5Source([path], "x", labels="y", patients="wsi", **options)
        stored = ingest_all(source, folder / "out.h5")
        require_stored(stored, read_truth(path, bool(options)), N)


class CheckedArraysInHdf5(ArraysInHdf5):
    """The same with compression and checksums: a changed pixel is noticed.

    The headers of HDF5 have no checksum. Where one of their bytes changed, another intact chunk may be read, as h5py does.
    """

    name = "ingest hdf5, checksums, bytes"
    checked: ClassVar[dict[str, Any]] = {"compression": "gzip", "fletcher32": True}

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        self.truth = read_truth(folder / "a.h5", False)
        self.outside = self.read_outside(folder / "a.h5")

    def read_outside(self, path: Path) -> bytes:
        """The bytes of the file but those of the chunks of images, whose places are found once."""
        if not hasattr(self, "chunks"):
            with h5py.File(path, "r", locking=False) as file:
                infos = [file["x"].id.get_chunk_info(i) for i in range(file["x"].id.get_num_chunks())]
                self.chunks = sorted((info.byte_offset, info.byte_offset + info.size) for info in infos)
        data, ends = path.read_bytes(), [0, *(end for _, end in self.chunks)]
        return b"".join(data[a:b] for a, b in zip(ends, [*(start for start, _ in self.chunks), len(data)], strict=True))

    def check(self, folder: Path) -> None:
        source = Hdf5Source([folder / "a.h5"], "x")
        stored = ingest_all(source, folder / "out.h5")
        try:
            require_stored(stored, {key: {"image": row["image"], "patient": key} for key, row in self.truth.items()}, N)
        except SilentlyWrong:
            if self.read_outside(folder / "a.h5") == self.outside:
                raise
            require_stored(stored, {key: {"image": image, "patient": key} for key, image in read_images(folder / "a.h5").items()}, N)


class StructureOfHdf5(ArraysInHdf5):
    """Datasets and attributes replaced by others."""

    name = "ingest hdf5, structure"

    def mutate(self, folder: Path, rng: Random) -> str:
        with h5py.File(folder / "a.h5", "r+") as file:
            key = rng.choice(KEYS)
            match rng.randrange(6):
                case 0:
                    del file[key]
                    return f"{key} left out"
                case 1:
                    del file[key]
                    file.create_group(key)
                    return f"{key} is a group"
                case 2:
                    return set_attribute(file[rng.choice(KEYS)], rng)
                case 3:
                    del file[key]
                    file[key] = rng.choice([h5py.SoftLink("/nowhere"), h5py.SoftLink(f"/{key}"), h5py.ExternalLink("b.h5", "/x")])
                    return f"{key} is a link to nothing"
                case _:
                    return replace_dataset(file, key, rng)


def set_attribute(data: h5py.Dataset, rng: Random) -> str:
    """Sets an attribute that TRIDENT or CLAM writes to something odd."""
    name, odd = rng.choice(["patch_size", "patch_level", "downsample", "patch_size_level0", "level0_magnification"]), rng.choice(ODD_VALUES)
    try:
        data.attrs[name] = odd
    except (TypeError, ValueError, OverflowError):
        data.attrs[name] = str(odd)[:99].encode("utf-8", "replace").replace(b"\0", b"?")
    return f"{data.name}.{name} is {odd!r}"[:80]


def replace_dataset(file: h5py.File, key: str, rng: Random) -> str:
    """Replaces a dataset by one of another shape, dtype, storage or with odd values."""
    old = file[key][()]
    del file[key]
    kind = rng.randrange(4)
    if kind == 0 and key in ("x", "coords"):
        values = old.astype(rng.choice(["f4", "f8"])) / 255
        values.flat[rng.randrange(values.size)] = rng.choice([math.nan, math.inf, -math.inf, -1.0, 2.0, 1e300])
        file[key] = values
        return f"{key} has {values.dtype} with an odd value"
    if kind == 1:
        shape = (2**31, *old.shape[1:]) if rng.random() < 0.5 else (N, *(2**20,) * (old.ndim - 1))
        file.create_dataset(key, shape, old.dtype, chunks=(1,) * len(shape))
        return f"{key} claims {shape}"
    shape, dtype = rng.choice([*SHAPES, old.shape, old.shape, old.shape]), np.dtype(rng.choice(DTYPES))
    if dtype.hasobject:
        file.create_dataset(key, shape, h5py.string_dtype())
        if math.prod(shape) == N:
            file[key][...] = np.array(["", "é", "a\nb", "=1", "nan", "x" * 300], object).reshape(shape)
    else:
        file[key] = (
            np.zeros(shape, dtype)
            if dtype.kind == "V"
            else np.resize(old.ravel() if old.dtype.kind != "S" else [1, 2], shape).astype(dtype)
        )
    return f"{key} is {shape} of {dtype}"


def read_truth(path: Path, with_coords: bool) -> dict[str, Stored]:
    """Key -> row as h5py reads it, image by image; images that it cannot read are left out."""
    truth: dict[str, Stored] = {}
    with h5py.File(path, "r", locking=False) as file:
        for i in range(min(len(file["x"]), N + 1)):
            try:
                key, label, patient = f"a/{i:06d}", file["y"][i], file["wsi"][i]
                at = (
                    {f"at_{name}": round(float(value)) for name, value in zip("xy", file["coords"][i], strict=False)} if with_coords else {}
                )
                row = {**at, "image": to_pixels(file["x"][i]), **name_label(label), "patient": name_patient(patient, key)}
            except (OSError, ValueError, KeyError, RuntimeError, OverflowError, TypeError):
                continue
            truth[key] = row
    return with_typed_labels(truth)


def read_images(path: Path) -> dict[str, Any]:
    """Key -> image as h5py reads it; images that it cannot read are left out."""
    images: dict[str, Any] = {}
    with h5py.File(path, "r", locking=False) as file:
        for i in range(min(len(file["x"]), N + 1)):
            with suppress(OSError, ValueError, KeyError, RuntimeError):
                images[f"a/{i:06d}"] = to_pixels(file["x"][i])
    return images


def with_typed_labels(truth: dict[str, Stored]) -> dict[str, Stored]:
    """The rows with labels as the documentation says: `nan` is unknown, and texts of which all others are numbers are numbers."""
    for name in {name for row in truth.values() for name in row if name.startswith("y")}:
        texts = {key: row[name] for key, row in truth.items() if isinstance(row.get(name), str)}
        known = {key: text for key, text in texts.items() if text not in ("", "nan")}
        all_numbers = known and all(re.fullmatch("[0-9]+", text) for text in known.values())
        for key in texts:
            truth[key][name] = (float(known[key]) if all_numbers else known[key]) if key in known else math.nan if all_numbers else ""
    return truth


def to_pixels(image: np.ndarray) -> np.ndarray:
    """(H, W, C) as the documentation of the command says."""
    image = image[..., None] if image.ndim == 2 else np.moveaxis(image, 0, -1) if image.shape[0] in (1, 3) and image.shape[2] > 3 else image
    if image.dtype.kind == "f":
        image = np.rint(image.astype(np.float64) * 65535).astype(np.uint16)
    if image.shape[2] == 3 and (image == image[..., :1]).all():
        image = image[..., :1]
    return image.astype(image.dtype.newbyteorder("="))


def name_label(label: Any) -> dict[str, Any]:
    values = np.asarray(label).reshape(-1)
    names = ["y"] if len(values) == 1 else [f"y_{k}" for k in range(len(values))]
    return {name: value.decode() if isinstance(value, bytes) else float(value) for name, value in zip(names, values.tolist(), strict=True)}


def name_patient(value: Any, key: str) -> str:
    value = np.asarray(value).reshape(-1)[0]
    text = value.decode() if isinstance(value, bytes) else str(value)
    return text if text not in ("", "nan") and not re.fullmatch("x+", text) else key  # a placeholder of de-identification, too


CLASSES = [ArraysInHdf5(), CheckedArraysInHdf5(), StructureOfHdf5()]
