"""Cost of `transfer tasks add` at the size of NIH ChestX-ray14: CPU and wall seconds of the command and of its steps.

    OMP_NUM_THREADS=1 python -m tests.perf.tasks_add [--images 112120] [--labels 14] [--profile]

The store is synthetic: images of one pixel with random pixel hashes, 3.6 images per patient and labels with 0.2 to 18 % positives. Its
perceptual hashes agree in many bits, as those of radiographs do, and 1 % are copies. The first command searches for copies among all
images; the second one finds them in the cache, as after the first task of a store. Target: 8 s for each.
"""

import argparse
import cProfile
import os
import pstats
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from encoders.store.write import save_store


def write_synthetic_store(path: Path, images: int, labels: int, seed: int = 0) -> Path:
    """A store of `images` one-pixel images of `images / 3.6` patients, with `labels` labels and a column for each way to add a task."""
    draw = np.random.default_rng(seed)
    patient = np.sort(draw.integers(0, max(1, round(images / 3.6)), images))
    prevalence = np.geomspace(0.002, 0.18, labels)
    columns = {f"finding_{i:02d}": (draw.random(images) < p).astype(float) for i, p in enumerate(prevalence)}
    pixels = np.zeros((images, 1, 1, 1), np.uint8)
    save_store(path, pixels, patient=[f"p{i:06d}" for i in patient], labels=columns, dataset="synthetic")
    with h5py.File(path, "a") as file:
        # One-pixel images are all equal: their hashes are replaced by those of different images.
        flips = draw.random((images, 256), np.float32) < draw.uniform(0.05, 0.5, 256)  # each bit has its own share of images
        hashes = np.packbits(flips, axis=1)
        near = draw.choice(images, images // 100, replace=False)
        hashes[near] = hashes[near - 1]
        file["index"]["phash"][:] = hashes
        file["index"]["sha256"][:] = [draw.bytes(32).hex() for _ in range(images)]
    return path


def time_call(name: str, work):
    """The result of `work()`. Prints the CPU seconds of this process and its children, and the wall seconds."""
    before, wall = os.times(), time.perf_counter()
    result = work()
    after = os.times()
    cpu = sum(after[:4]) - sum(before[:4])
    print(f"{name:40} {cpu:7.1f} s CPU {time.perf_counter() - wall:7.1f} s wall", flush=True)
    return result


def main() -> None:
    """Writes the store and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=112_120)
    parser.add_argument("--labels", type=int, default=14)
    parser.add_argument("--profile", action="store_true", help="also print the functions that take most of the time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ISOGRAFT_HOME"] = folder
        store = time_call("writing the store", lambda: write_synthetic_store(Path(folder) / "s.h5", options.images, options.labels))
        names = [word for i in range(options.labels) for word in ("--label", f"finding_{i:02d}")]
        command = [sys.executable, "-m", "transfer", "tasks", "add", "nih", str(store), "--replace", *names]
        for run in ("first, with the search for copies", "again"):
            time_call(f"tasks add, {run}", lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
        if options.profile:
            print_profile(names, store)


def print_profile(names: list[str], store: Path) -> None:
    """The functions that take most of the time in `tasks add`."""
    from typer.testing import CliRunner

    from transfer.cli.main import app

    profile = cProfile.Profile()
    profile.enable()
    done = CliRunner().invoke(app, ["tasks", "add", "nih", str(store), "--replace", *names])
    profile.disable()
    assert done.exit_code == 0, done.output
    pstats.Stats(profile).sort_stats("cumulative").print_stats(45)


if __name__ == "__main__":
    main()
