"""Cost of `transfer tasks add` at the size of NIH ChestX-ray14: CPU and wall seconds of the command and of its steps.

    OMP_NUM_THREADS=1 python -m tests.perf.tasks_add [--images 112120] [--labels 14] [--profile]

The store is synthetic: different images of 32 pixels, of which 1 % are copies with noise, 3.6 images per patient and labels with 0.2 to
18 % positives. As in radiographs, all images resemble their mean, so that their perceptual hashes agree in many bits. The first command
searches for copies among all images; the second one finds them in the cache, as after the first task of a store. Target: 8 s for each.
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

import numpy as np

from encoders.store.write import save_store


def write_synthetic_store(path: Path, images: int, labels: int, seed: int = 0) -> Path:
    """A store of `images` images of `images / 3.6` patients, with `labels` labels."""
    draw = np.random.default_rng(seed)
    patient = np.sort(draw.integers(0, max(1, round(images / 3.6)), images))
    prevalence = np.geomspace(0.002, 0.18, labels)
    columns = {f"finding_{i:02d}": (draw.random(images) < p).astype(float) for i, p in enumerate(prevalence)}
    mean, parts = draw.normal(0, 25, (16, 16)), draw.normal(0, 25, (images, 16, 16)).astype(np.float32)
    pixels = np.clip(128 + mean + parts, 0, 255).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)[..., None]  # (N, 32, 32, 1)
    copied = draw.choice(images - 1, images // 100, replace=False)
    pixels[copied] = pixels[copied + 1] // 2 * 2 + draw.integers(0, 2, (len(copied), 32, 32, 1), dtype=np.uint8)
    return save_store(path, pixels, patient=[f"p{i:06d}" for i in patient], labels=columns, dataset="synthetic")


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
