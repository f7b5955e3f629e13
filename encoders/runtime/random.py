"""Random numbers that are a pure function of their address.

Every draw is addressed by (seed, purpose, position, view, lane), never taken from a stream, so that it is the same in every worker, rank
and restart. The generator is Philox4x32-10, vectorised over positions.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3.

Shapes: P positions, N lanes (numbers drawn for each position).
"""

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from encoders.runtime.arrays import FloatArray, IntArray


class Purpose(IntEnum):
    """The purpose of a draw; two purposes never share numbers. Values are part of every result: append, never renumber."""

    ORDER = 0
    CROP = 1
    FLIP = 2
    ROTATE = 3
    COLOUR = 4
    BLUR = 5
    NOISE = 6
    MASK = 7
    SPLIT = 8
    BOOTSTRAP = 9
    PHANTOM = 10
    MODEL = 11
    SOLARISE = 12
    CUTOUT = 13
    ELASTIC = 14
    STAIN = 15
    SHUFFLE = 16
    PARTNER = 17
    LABELS = 18
    MIX = 19
    PROBE = 20
    SHIFT = 21
    ACQUISITION = 22
    SLICES = 23
    TILES = 25
    UNCERTAIN = 26
    STAIN_MIX = 27
    MASK_SHAPE = 28  # of the masks of a step; its position is the step
    SETS = 29
    MIXUP = 31
    RANDAUGMENT = 32
    CLAHE = 33
    EXPLAIN = 40


_PHILOX_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_PHILOX_WEYL = 0x9E3779B9, 0xBB67AE85
_LOW_32_BITS = np.uint64(0xFFFFFFFF)
_SHIFT_32 = np.uint64(32)


def philox(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Ten rounds of Philox4x32 on 32-bit words stored in 64 bits: counter (..., 4) -> random words (..., 4)."""
    a, b, c, d = (counter[..., i] & _LOW_32_BITS for i in range(4))
    for turn in range(10):
        k0 = np.uint64((key[0] + turn * _PHILOX_WEYL[0]) & 0xFFFFFFFF)
        k1 = np.uint64((key[1] + turn * _PHILOX_WEYL[1]) & 0xFFFFFFFF)
        left, right = a * _PHILOX_MULTIPLIERS[0], c * _PHILOX_MULTIPLIERS[1]
        a, b, c, d = (right >> _SHIFT_32) ^ b ^ k0, right & _LOW_32_BITS, (left >> _SHIFT_32) ^ d ^ k1, left & _LOW_32_BITS
    return np.stack([a, b, c, d], axis=-1)


def random_bits(seed: int, purpose: int, position: ArrayLike, view: int = 0, n: int = 1) -> NDArray[np.uint32]:
    """(P, N) random 32-bit words.

    position: (P,) non-negative integers below 2**64.  view: 0..65535.  n: at most 262,144 lanes."""
    where = np.atleast_1d(np.asarray(position)).astype(np.uint64)
    blocks = np.arange((n + 3) // 4, dtype=np.uint64)
    counter = np.empty((len(where), len(blocks), 4), dtype=np.uint64)
    counter[..., 0] = (where & _LOW_32_BITS)[:, None]
    counter[..., 1] = (where >> _SHIFT_32)[:, None]
    counter[..., 2] = (np.uint64(view) << np.uint64(16)) | blocks
    counter[..., 3] = np.uint64(int(purpose))
    words = philox(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    return words.reshape(len(where), -1)[:, :n].astype(np.uint32)


def uniform(seed: int, purpose: int, position: ArrayLike, view: int = 0, n: int = 1) -> FloatArray:
    """(P, N) numbers in [0, 1), from 32 random bits each."""
    return random_bits(seed, purpose, position, view, n).astype(np.float64) * 2.0**-32


def normal(seed: int, purpose: int, position: ArrayLike, view: int = 0, n: int = 1) -> FloatArray:
    """(P, N) standard normal numbers, by Box and Muller from two uniform lanes each."""
    pair = uniform(seed, purpose, position, view, 2 * n)
    radius: FloatArray = np.sqrt(-2.0 * np.log1p(-pair[:, :n]))  # 1 - u is in (0, 1], so the logarithm is finite
    return radius * np.cos(2.0 * np.pi * pair[:, n:])


def permutation(seed: int, purpose: int, epoch: int, n: int) -> IntArray:
    """A random order of range(n): indices sorted by 64 random bits; ties (one in 10**13 at a million) keep their order."""
    # The epoch is in the bits above the position of the 64-bit counter: epochs share no number up to 2**40 images.
    words = random_bits(seed, purpose, np.arange(n, dtype=np.uint64) + (np.uint64(epoch) << np.uint64(40)), n=2)
    keys = (words[:, 0].astype(np.uint64) << _SHIFT_32) | words[:, 1]
    return np.argsort(keys, kind="stable").astype(np.int64)


def generator(seed: int, purpose: int, *words: int) -> np.random.Generator:
    """A NumPy generator for code where speed does not matter, whose stream is a function of (seed, purpose, words)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed & (2**64 - 1), int(purpose), *words])))
