"""Permutation test of a paired difference of AUROC: the scores of the two encoders are swapped, patient by patient.

Needs no minimum number of patients. Its hypothesis is that the two encoders are exchangeable.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.random import Purpose, generator
from transfer.metrics import auroc, macro
from transfer.stats.patients import encode_patients, to_columns

EXACT_PATIENTS = 12  # with at most so many, all swaps are enumerated
PERMUTATIONS = 9_999
PERMUTATION_CHUNK = 512  # permutations at a time

ScoredRows = tuple[Array, Array, Array]  # labels (N,) or (N, C), scores (N,) or (N, C), patients (N,) of one test part
ScoredFolds = Sequence[Sequence[ScoredRows]]  # for every fold, the scored test part of every draw


def permutation_p_value(a: ScoredFolds, b: ScoredFolds, n: int = PERMUTATIONS, seed: int = 0) -> float:
    """The two-sided p-value of the difference of the mean AUROC over folds and draws. a, b: the same rows, labels and patients.

    Scores are replaced by their ranks, because only their order is comparable between encoders (Bandos et al. 2005): ranks over all test
    parts, because those within a part of three patients depend so much on each other that swaps no longer give what could have been. A
    patient is swapped in all folds and draws at once. With up to EXACT_PATIENTS patients all swaps are enumerated."""
    code, size = encode_patients(np.concatenate([np.asarray(patient).astype(str) for fold in a for _, _, patient in fold]))
    exact = size <= EXACT_PATIENTS
    observed = abs(_permuted_differences(a, b, code, np.zeros((size, 1), dtype=np.float32))[0])
    as_large = total = 0
    for swaps in _all_swaps(size) if exact else _random_swaps(size, n, seed):
        as_large += int((np.abs(_permuted_differences(a, b, code, swaps)) >= observed - 1e-12).sum())  # 1e-12: rounding
        total += swaps.shape[1]
    return as_large / total if exact else (as_large + 1) / (total + 1)


def _all_swaps(size: int) -> list[NDArray[np.float32]]:
    """All (size, 2^size) assignments, in one chunk; the identity is among them."""
    return [((np.arange(2**size)[None, :] >> np.arange(size)[:, None]) & 1).astype(np.float32)]


def _random_swaps(size: int, n: int, seed: int) -> list[NDArray[np.float32]]:
    draw = generator(seed, Purpose.BOOTSTRAP, 1)
    sizes = [min(PERMUTATION_CHUNK, n - start) for start in range(0, n, PERMUTATION_CHUNK)]
    return [draw.integers(0, 2, (size, chunk)).astype(np.float32) for chunk in sizes]


def _permuted_differences(a: ScoredFolds, b: ScoredFolds, code: Array, swaps: NDArray[np.float32]) -> FloatArray:
    """(B,) differences under swaps (G, B): the mean over draws, then over folds. Swaps are weights of the stacked rows of both."""
    (ranks_a, ranks_b), folds, at = (_ranks_over_parts(a), _ranks_over_parts(b)), [], 0
    for ours, theirs in zip(a, b, strict=True):
        draws = []
        for (y, _, patient), _ in zip(ours, theirs, strict=True):
            rows = slice(at, at + len(patient))
            at += len(patient)
            swap, labels = swaps[code[rows]], to_columns(y)  # (N, B), (N, C)
            both_y, both = np.concatenate([labels, labels]), np.concatenate([ranks_a[rows], ranks_b[rows]])
            first = np.asarray(auroc(both_y, both, weight=np.concatenate([1 - swap, swap])))
            second = np.asarray(auroc(both_y, both, weight=np.concatenate([swap, 1 - swap])))
            draws.append(macro(first - second)[0])
        folds.append(np.nanmean(np.stack([np.atleast_1d(d) for d in draws]), axis=0))
    return np.asarray(np.nanmean(np.stack(folds), axis=0))


def _ranks_over_parts(tests: ScoredFolds) -> FloatArray:
    """(N, C) mid-ranks of the rows of all test parts, one after the other."""
    return midranks(np.concatenate([to_columns(s) for fold in tests for _, s, _ in fold]))


def midranks(s: Array) -> FloatArray:
    """(N, C) mid-ranks of every column."""
    from scipy.stats import rankdata

    ranks: FloatArray = rankdata(s, axis=0)
    return ranks
