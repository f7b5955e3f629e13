"""Near-duplicate search of 25,000 test images in a manifest of 1,000,000, with synthetic hashes: prints the seconds it takes.

    OMP_NUM_THREADS=2 python -m tests.perf.leak [--manifest 1000000] [--test 25000]

Synthetic hashes agree in as many bits as those of radiographs. Target: minutes on two cores. A thousand test images are copies with 0 to 8
changed bits, and all of them must be found.
"""

import argparse
import time

import numpy as np

from transfer.leakage.image_copies import find_manifest_near_duplicates


def hashes(n: int, rng: np.random.Generator) -> np.ndarray:
    """(N, 32): eight sources of variation behind all bits, so that unrelated images agree in far more than half of them."""
    shape = np.random.default_rng(7).normal(size=(8, 256))  # the same for every call: one kind of image
    parts = [rng.normal(size=(min(50_000, n - i), 8)).astype(np.float32) @ shape for i in range(0, n, 50_000)]
    return np.concatenate([np.packbits(p + rng.normal(0, 1.5, p.shape) > 1.0, axis=1) for p in parts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", type=int, default=1_000_000)
    parser.add_argument("--test", type=int, default=25_000)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    manifest, tested = hashes(args.manifest, rng), hashes(args.test, rng)
    copied = min(1000, args.test)
    for i, row in enumerate(rng.choice(args.manifest, copied, replace=False)):
        bits = np.unpackbits(manifest[row])
        bits[rng.choice(256, i % 9, replace=False)] ^= 1
        tested[i] = np.packbits(bits)
    rows, sha = np.arange(args.test), np.array([f"{i:064x}" for i in range(args.test)])
    cpu, wall = time.process_time(), time.perf_counter()
    (leak,) = find_manifest_near_duplicates("enc", {"phash": manifest, "sha256": None}, rows, rows.astype(str), tested, sha)
    spent = f"{time.process_time() - cpu:.0f} s CPU, {time.perf_counter() - wall:.0f} s wall"
    print(f"{args.test} x {args.manifest}: {spent}, {leak.count} found, {copied} of them are copies")
    assert leak.count >= copied, f"{copied - leak.count} copies were missed"


if __name__ == "__main__":
    main()
