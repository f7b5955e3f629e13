"""Files of arrays for the tests, in the layouts of MedMNIST, PCam and CLAM."""

from pathlib import Path

import h5py
import numpy as np


def random_images(n, side=32, channels=3, dtype=np.uint8, seed=0):
    """(n, side, side, channels) random values; without the last axis if channels is 0."""
    rng = np.random.default_rng(seed)
    shape = (n, side, side, channels) if channels else (n, side, side)
    return (
        rng.random(shape).astype(dtype)
        if np.dtype(dtype).kind == "f"
        else rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    )


def write_medmnist(path: Path, side=28, channels=0, classes=2, findings=1, packed=True, n=(12, 4, 5)) -> dict[str, np.ndarray]:
    """An .npz in MedMNIST's format; returns its arrays."""
    rng = np.random.default_rng(side)
    arrays = {}
    for k, split in enumerate(("train", "val", "test")):
        arrays[f"{split}_images"] = random_images(n[k], side, channels, seed=k)
        arrays[f"{split}_labels"] = rng.integers(0, classes, (n[k], findings)).astype(np.uint8)
    (np.savez_compressed if packed else np.savez)(path, **arrays)
    return arrays


def write_pcam(folder: Path, n=40) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    """camelyonpatch_level_2_split_valid_{x,y}.h5 with 96-px patches in chunks of 16: (x file, y file, x, y)."""
    x, y = random_images(n, 96), (np.arange(n) % 2).astype(np.uint8)
    paths = [folder / f"camelyonpatch_level_2_split_valid_{k}.h5" for k in "xy"]
    with h5py.File(paths[0], "w") as file:
        file.create_dataset("x", data=x, chunks=(16, 96, 96, 3), compression="gzip", compression_opts=1)
    with h5py.File(paths[1], "w") as file:
        file.create_dataset("y", data=y.reshape(n, 1, 1, 1))
    return paths[0], paths[1], x, y


def write_clam(path: Path, n=9, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """A slide's file as CLAM's create_patches writes it: (imgs, coords), growing datasets, one patch per chunk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = random_images(n, 64, seed=seed)
    coords = np.stack([np.arange(n) * 256, np.full(n, 512)], axis=1)
    with h5py.File(path, "w") as file:
        file.create_dataset("imgs", data=images, maxshape=(None, 64, 64, 3), chunks=(1, 64, 64, 3))
        data = file.create_dataset("coords", data=coords, maxshape=(None, 2), chunks=(1, 2))
        data.attrs["patch_level"] = 0
    return images, coords
