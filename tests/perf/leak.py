"""Search for copies of 25,600 test images in a manifest of 112,120, every test image as it is and in its fifteen other turns: prints the
seconds it takes.

    OMP_NUM_THREADS=1 python -m tests.perf.leak [--manifest 112120] [--test 25600]

The hashes are of synthetic images with structure at all scales, of which a tenth has a border. Target: well below a minute on one core. A
thousand test images are turned copies with 0 to 8 changed bits, and all of them must be found.
"""

import argparse
import time

import numpy as np

from encoders.similarity.turned_search import find_candidates
from encoders.similarity.turns import TURNS, inverse_turn, turn_hashes


def hash_signs_of_random_images(n: int, rng: np.random.Generator, kinds: int = 12) -> np.ndarray:
    """(N, 4, 32): a few sources of variation behind all cells, so that unrelated images agree in far more than half of the bits."""
    common = np.random.default_rng(7).normal(size=(kinds, 288)).cumsum(axis=1)  # the same for every call: one kind of image
    common -= common.mean(axis=1, keepdims=True)
    signs = []
    for start in range(0, n, 20_000):
        own = rng.normal(size=(min(20_000, n - start), kinds))
        own[:, 0] += 6
        cells = own @ common
        plain, other = (rising_bits(cells + rng.normal(0, 3, cells.shape)) for _ in range(2))
        content = np.where(rng.random((len(own), 1)) < 0.1, other, plain)  # without its border, if it has one
        signs.append(np.stack([plain, ~plain, content, ~content], axis=1))
    return np.concatenate(signs)


def rising_bits(cells: np.ndarray) -> np.ndarray:
    """(N, 32) hashes of (N, 288) cells: 16 x 9, then 9 x 16."""
    wide, high = cells[:, :144].reshape(-1, 16, 9), cells[:, 144:].reshape(-1, 9, 16)
    rises = [(np.diff(wide, axis=2) > 0).reshape(-1, 128), (np.diff(high, axis=1) > 0).reshape(-1, 128)]
    return np.packbits(np.concatenate(rises, axis=1), axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", type=int, default=112_120)
    parser.add_argument("--test", type=int, default=25_600)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    manifest, tested = (hash_signs_of_random_images(n, rng) for n in (args.manifest, args.test))
    copied = min(1000, args.test)
    originals = rng.choice(args.manifest, copied, replace=False)
    for i, row in enumerate(originals):
        bits = np.unpackbits(turn_hashes(manifest[row : row + 1, 0], manifest[row : row + 1, 1])[i % 16, 0])
        bits[rng.choice(256, i % 9, replace=False)] ^= 1
        tested[i] = np.stack([np.packbits(bits), ~np.packbits(bits)] * 2)
    cpu, wall = time.process_time(), time.perf_counter()
    found = find_candidates(tested, manifest[:, 0], manifest[:, 2])
    spent = f"{time.process_time() - cpu:.1f} s CPU, {time.perf_counter() - wall:.1f} s wall"
    missed = {(i, int(row), inverse_turn(i % 16)) for i, row in enumerate(originals)} - {(c.query, c.match, c.turn) for c in found}
    others = f"{len(found) - copied + len(missed)} other candidates"
    print(f"{args.test} x {len(TURNS)} turns x {args.manifest}: {spent}; {copied - len(missed)} of {copied} copies, {others}")
    assert not missed, f"{len(missed)} copies were missed"


if __name__ == "__main__":
    main()
