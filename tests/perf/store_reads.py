"""Random single-image reads through the store against np.memmap on the same pixels: prints the ratio of the times.

    python tests/perf/store_reads.py [--images 4000] [--size 256]

Target: a ratio of at most 2. Both copy the image, as a loader does. Best of five rounds, because other load disturbs.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from encoders.store.store import Store
from encoders.store.write import full_range_unit, pixel_fingerprint, write_store


def seconds_per_read(read: Callable[[int], object], order: list[int]) -> float:
    """Mean wall seconds of one read."""
    start = time.perf_counter()
    for i in order:
        read(i)
    return (time.perf_counter() - start) / len(order)


def write_both(folder: Path, n: int, shape: tuple[int, int, int]) -> tuple[Store, np.memmap]:
    """The same n images of noise as a store and as a flat file."""
    flat = np.memmap(folder / "flat", np.uint8, "w+", shape=(n, *shape))
    rng = np.random.default_rng(0)
    for i in range(n):
        flat[i] = rng.integers(0, 256, shape, dtype=np.uint8)
    keys = [str(i) for i in range(n)]
    index = {"key": keys, "patient": keys, "sha256": ["0" * 64] * n, "phash": np.zeros((n, 32), np.uint8)}
    attrs = {"modality": "cxr", "codec": "raw", "channels": 1, "dataset": "perf", "geometry": {}, "recipe": {}}
    attrs["fingerprint"] = pixel_fingerprint(index["sha256"])
    write_store(folder / "a.h5", flat, shape, np.uint8, attrs | {"unit": full_range_unit(np.uint8)}, index)
    return Store.open(folder / "a.h5"), np.memmap(folder / "flat", np.uint8, "r", shape=(n, *shape))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--size", type=int, default=256)
    args = parser.parse_args()
    n, shape = args.images, (args.size, args.size, 1)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        store, mapped = write_both(Path(folder), n, shape)
        opened = time.perf_counter() - start
        rng = np.random.default_rng(0)
        order = rng.integers(0, n, n).tolist()
        assert all(np.array_equal(store.image(i), mapped[i]) for i in order[:200])
        ours, plain = [], []
        for _ in range(5):
            plain.append(seconds_per_read(lambda i: np.array(mapped[i]), order))
            ours.append(seconds_per_read(lambda i: np.array(store.image(i)), order))
    print(f"{n} images of {shape}: written and opened in {opened:.1f} s")
    print(
        f"np.memmap {min(plain) * 1e6:.1f} us, store {min(ours) * 1e6:.1f} us per image, ratio {min(ours) / min(plain):.2f} (target: <= 2)"
    )


if __name__ == "__main__":
    main()
