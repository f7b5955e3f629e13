"""`encoders ingest medmnist`: archives whose bytes were changed, which their checksums tell, and archives written with other arrays."""

import zipfile
from pathlib import Path
from random import Random

import numpy as np

from encoders.ingest.medmnist.source import MedMNISTSource
from tests.fuzz.harness import FuzzClass
from tests.fuzz.ingested import Stored, ingest_all, require_stored

N, SIDE = 4, 32
SPLITS = ("train", "val", "test")
ARRAYS = [f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels")]
DTYPES = ["u1", "u2", "i1", "i8", "f4", "f8", "?", "S3", "U3", "O", "c8", "M8[s]"]
SHAPES = [(), (0,), (N,), (N, SIDE), (N, SIDE, SIDE), (N, SIDE, SIDE, 3), (N, SIDE, SIDE, 4), (N, SIDE, SIDE, SIDE), (N, 1), (N, 2)]
SHAPES += [(N + 1, 1), (0, 1)]


class MedMNISTBytes(FuzzClass):
    """An archive whose bytes were changed."""

    def __init__(self, packed: bool):
        self.packed, self.name = packed, f"ingest medmnist, {'compressed' if packed else 'stored'}, bytes"

    def prepare(self, folder: Path) -> None:
        self.arrays = make_arrays()
        (np.savez_compressed if self.packed else np.savez)(folder / "pneumoniamnist.npz", **self.arrays)

    def check(self, folder: Path) -> None:
        source = MedMNISTSource(folder / "pneumoniamnist.npz", folder / "spool")
        stored = ingest_all(source, folder / "out.h5")
        require_stored(stored, read_truth(self.arrays), 3 * N)


class MedMNISTStructure(MedMNISTBytes):
    """An archive with other arrays, or other members."""

    def __init__(self) -> None:
        super().__init__(False)
        self.name = "ingest medmnist, structure"

    def mutate(self, folder: Path, rng: Random) -> str:
        path, arrays, name = folder / "pneumoniamnist.npz", make_arrays(), rng.choice(ARRAYS)
        save = rng.choice([np.savez, np.savez_compressed])
        match rng.randrange(6):
            case 0:
                del arrays[name]
                change = f"{name} left out"
            case 1:
                new = rng.choice(["extra", "../train_images", "/train_images", name + "\n", "train_images"])
                arrays[new] = arrays.pop(name)
                change = f"{name} is called {new!r}"
            case 2:
                values = arrays[name].astype(rng.choice(["f4", "f8"]))
                values.flat[rng.randrange(values.size)] = rng.choice([np.nan, np.inf, -1, 0.5, 1e300, 2.0])
                arrays[name] = values
                change = f"{name} of {values.dtype} with an odd value"
            case 3:
                with zipfile.ZipFile(path, "a") as archive:
                    content = rng.choice([b"", b"\x93NUMPY", b"x" * 99])
                    archive.writestr(rng.choice([f"{name}.npy", "x.npy", "readme.txt", f"{name}.npy/"]), content)
                return "a member more"
            case _:
                shape, dtype = rng.choice([*SHAPES, *[arrays[name].shape] * 4]), rng.choice(DTYPES)
                values = np.resize(arrays[name], shape)
                arrays[name] = rng.choice([values.astype(dtype), np.asfortranarray(values)])
                change = f"{name} is {arrays[name].shape} of {arrays[name].dtype}"
        save(path, **arrays)
        self.arrays = arrays
        return change

    def check(self, folder: Path) -> None:
        try:
            with np.load(folder / "pneumoniamnist.npz", allow_pickle=False) as file:
                self.arrays = {name: file[name] for name in ARRAYS if name in file}
        except (ValueError, OSError, zipfile.BadZipFile):
            self.arrays = {}
        super().check(folder)


def make_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    images = {f"{split}_images": rng.integers(0, 256, (N, SIDE, SIDE), dtype=np.uint8) for split in SPLITS}
    return images | {f"{split}_labels": np.array([[0], [1], [1], [0]], np.uint8) for split in SPLITS}


def read_truth(arrays: dict[str, np.ndarray]) -> dict[str, Stored]:
    """Key -> row: `pneumonia` is whether the code is 1."""
    truth: dict[str, Stored] = {}
    for split in SPLITS:
        images, labels = arrays.get(f"{split}_images"), arrays.get(f"{split}_labels")
        if images is None or labels is None or not images.ndim or not labels.ndim:
            continue
        if images.dtype.kind not in "ui" or labels.dtype.kind not in "uifb":
            continue
        for i, (image, label) in enumerate(zip(images, labels, strict=False)):
            image = image[..., None] if image.ndim == 2 else image
            image = image[..., :1] if image.ndim == 3 and image.shape[2] == 3 and (image == image[..., :1]).all() else image
            codes = label.reshape(-1).tolist()
            if any(code not in ((0, 1) if len(codes) == 1 else (*range(256),)) for code in codes):
                continue  # no class has such a code
            key = f"{split}/{i:06d}"
            named = {"pneumonia": float(codes[0] == 1)} if len(codes) == 1 else {f"label_{k}": float(c) for k, c in enumerate(codes)}
            truth[key] = {"image": image, "patient": key, **named}
    if any(row["image"].shape[2:] == (3,) for row in truth.values()):  # a store has one number of channels
        truth = {key: row | {"image": np.broadcast_to(row["image"], (*row["image"].shape[:2], 3))} for key, row in truth.items()}
    return truth


CLASSES = [MedMNISTBytes(True), MedMNISTBytes(False), MedMNISTStructure()]
